"""What a worker refuses to go on with: it ends with exit code 1 and one line that says what was found and what to do,
and changes nothing.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgpack
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from stream.commands.broker import Broker
from stream.fault_points import Point
from tests.crash import plan as orders
from tests.crash.plan import Order
from tests.integration.test_worker import PARTITIONS, ROOT, Application, Running, decoded
from tests.processes import wait_until

ENDS_WITHIN_S = 60.0
SEEN_S = {
    "KAFKA_TOPIC_METADATA_REFRESH_INTERVAL_MS": 500,
    "KAFKA_TRANSACTION_TIMEOUT_MS": 3000,
    "KAFKA_SESSION_TIMEOUT_MS": 6000,
}
RECORDS = 300

pytestmark = pytest.mark.isolation


def records(count: int = RECORDS) -> list[tuple[bytes, bytes]]:
    return [(b"user-%d" % (at % 30), msgpack.packb({"item": at, "ts": 1_000 + at})) for at in range(count)]


def has_taken(application: Application, worker: Running) -> None:
    application.wait_until(application.sent, worker)


def refusal(worker: Running) -> str:
    """The one line that it ends with."""
    assert worker.process.wait(ENDS_WITHIN_S) == 1, worker.told()
    said = worker.log.read_text()
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("rec2pm: ")]
    assert len(lines) == 1, said
    return lines[0]


@pytest.fixture(scope="module")
def admin(broker: Broker) -> AdminClient:
    """One that lives: a temporary one takes its futures with it."""
    return AdminClient({"bootstrap.servers": broker.bootstrap})


def made_anew(client: AdminClient, topic: str, cleanup: str, partitions: int = PARTITIONS) -> None:
    """Deleted, and made again under the same name."""
    client.delete_topics([topic])[topic].result(30)
    wait_until(lambda: topic not in client.list_topics(timeout=10).topics, 30, "the topic is gone")

    def made() -> bool:
        # Its name stays taken for a moment.
        future = client.create_topics([NewTopic(topic, partitions, 1, config={"cleanup.policy": cleanup})])[topic]
        return future.exception(30) is None

    wait_until(made, 30, "the topic is made again")
    wait_until(lambda: topic in client.list_topics(timeout=10).topics, 30, "the topic is listed")


def offsets_set_by_hand(application: Application, *, ends: bool = False) -> None:
    """What `kafka-consumer-groups.sh --reset-offsets --execute` does with `--to-current`, or with `--to-latest`."""
    consumer = Consumer({"bootstrap.servers": application.bootstrap, "group.id": application.name})
    places = [TopicPartition(application.interactions, number) for number in range(application.partitions)]
    wait_until(lambda: application.committed() >= 0, 30, "the group's coordinator is there")
    if not ends:
        places = consumer.committed(places, timeout=30)
    if ends:
        places = [
            TopicPartition(each.topic, each.partition, consumer.get_watermark_offsets(each, timeout=30)[1])
            for each in places
        ]
    consumer.commit(
        offsets=[TopicPartition(each.topic, each.partition, each.offset) for each in places if each.offset >= 0],
        asynchronous=False,
    )
    consumer.close()


@pytest.mark.parametrize("disk", ["kept", "lost"])
def test_a_changelog_that_was_made_anew_is_no_empty_beginning(
    application: Application, admin: AdminClient, disk: str
) -> None:
    application.produce(records())
    worker = application.start_worker()
    has_taken(application, worker)
    assert worker.stop()[0] == 0
    made_anew(admin, f"{application.name}.changelog", "compact")
    if disk == "lost":
        shutil.rmtree(application.state)
    committed = application.committed()
    application.produce(records())
    said = refusal(application.start_worker())
    assert f"{application.name}.changelog[" in said
    assert "is another topic" in said
    assert "--reset-offsets --to-current" in said
    assert application.committed() == committed, "nothing was taken"

    offsets_set_by_hand(application)
    worker = application.start_worker()
    has_taken(application, worker)
    assert worker.stop()[0] == 0
    assert application.export()["taken"].sum() == RECORDS, "state begins anew, as was asked for"


@pytest.mark.parametrize("partitions", [PARTITIONS, 1], ids=["like before", "with fewer partitions"])
def test_a_changelog_that_is_made_anew_under_a_running_worker_stops_it(
    application: Application, admin: AdminClient, partitions: int
) -> None:
    """With fewer partitions the client refuses the records of those that are gone, at once or, calling the transaction
    inconsistent, later.
    """
    worker = application.start_worker(**SEEN_S)
    for _ in range(5):
        application.produce(records())
        has_taken(application, worker)
    made_anew(admin, f"{application.name}.changelog", "compact", partitions)
    application.produce(records())
    said = refusal(worker)
    assert (
        "created again" in said
        or "is gone" in said
        or (partitions < PARTITIONS and "the topic has fewer partitions than it had" in said)
    )


def test_interactions_that_were_deleted_before_they_were_taken_are_counted(
    application: Application, admin: AdminClient
) -> None:
    application.produce(records())
    worker = application.start_worker()
    has_taken(application, worker)
    assert worker.stop()[0] == 0
    application.produce(records())
    ends = [TopicPartition(application.interactions, number, -1) for number in range(PARTITIONS)]
    for future in admin.delete_records(ends).values():
        future.result(30)
    committed = application.committed()
    said = refusal(application.start_worker())
    assert f"{application.interactions}[" in said
    assert "were deleted before a worker read them (retention)" in said
    assert "kafka-consumer-groups.sh --reset-offsets" in said
    assert application.committed() == committed


@pytest.mark.parametrize("application", [8], ids=["8 partitions"], indirect=True)
def test_a_topic_that_is_past_its_retention_is_begun_where_it_begins(
    application: Application, admin: AdminClient
) -> None:
    """Twice, in many partitions: a fetch from an offset that is gone would be a race."""
    taken = 0
    for _ in range(2):
        application.produce(records())
        ends = [TopicPartition(application.interactions, number, -1) for number in range(application.partitions)]
        for future in admin.delete_records(ends).values():
            future.result(30)
        offsets_set_by_hand(application, ends=True)
        application.produce(records())
        worker = application.start_worker()
        has_taken(application, worker)
        taken += RECORDS
        assert worker.stop()[0] == 0, worker.told()
    assert application.export()["taken"].sum() == taken


def test_a_committed_offset_beyond_the_end_of_the_input_is_no_beginning_either(application: Application) -> None:
    """What a broker that lost the end of its log leaves behind."""
    application.produce(records())
    consumer = Consumer({"bootstrap.servers": application.bootstrap, "group.id": application.name})
    consumer.commit(offsets=[TopicPartition(application.interactions, 0, 10_000)], asynchronous=False)
    consumer.close()
    said = refusal(application.start_worker())
    assert f"{application.interactions}[0] does not have the next offset to read" in said
    assert "kafka-consumer-groups.sh --reset-offsets" in said


@pytest.mark.parametrize(("anew", "again"), [(0, 1), (2 * RECORDS, 2)], ids=["empty", "longer"])
def test_an_input_that_was_made_anew_is_not_taken_for_the_old_one(
    application: Application, admin: AdminClient, anew: int, again: int
) -> None:
    """Its offsets begin anew, whether it reaches up to where the state stands or not; Kafka has forgotten what was
    committed with the topic.
    """
    application.produce(records())
    worker = application.start_worker()
    has_taken(application, worker)
    assert worker.stop()[0] == 0
    made_anew(admin, application.interactions, "delete")
    application.produce(records(anew))
    said = refusal(application.start_worker())
    assert f"{application.interactions} is another topic" in said
    assert "kafka-consumer-groups.sh --reset-offsets" in said

    consumer = Consumer({"bootstrap.servers": application.bootstrap, "group.id": application.name})
    consumer.commit(
        offsets=[TopicPartition(application.interactions, number, 0) for number in range(PARTITIONS)],
        asynchronous=False,
    )
    consumer.close()
    application.sent = anew
    for _ in range(again):  # it is the known one from then on
        application.produce(records())
        worker = application.start_worker()
        has_taken(application, worker)
        assert worker.stop()[0] == 0
    assert application.export()["taken"].sum() == (1 + again) * RECORDS + anew, (
        "said to be another one, it counts on top"
    )


@pytest.mark.parametrize("forgotten", ["all", "the newest"])
def test_offsets_that_kafka_forgot_are_known_by_the_state(application: Application, forgotten: str) -> None:
    """Dropped after offsets.retention.minutes; or, after a broker was killed, those of an earlier moment (seen)."""
    application.produce(records())
    worker = application.start_worker()
    has_taken(application, worker)
    assert worker.stop()[0] == 0
    consumer = Consumer({"bootstrap.servers": application.bootstrap, "group.id": application.name})
    places = [TopicPartition(application.interactions, number) for number in range(PARTITIONS)]
    if forgotten == "all":
        client = AdminClient({"bootstrap.servers": application.bootstrap})
        client.delete_consumer_groups([application.name])[application.name].result(30)
    else:
        told = consumer.committed(places, timeout=30)
        stale = [
            TopicPartition(each.topic, each.partition, each.offset // 2, metadata=each.metadata)
            for each in told
            if each.offset > 0
        ]
        consumer.commit(offsets=stale, asynchronous=False)
    consumer.close()
    application.produce(records())
    worker = application.start_worker()
    has_taken(application, worker)
    assert worker.stop()[0] == 0
    assert "but the state reaches" in worker.log.read_text()
    assert application.export()["taken"].sum() == 2 * RECORDS
    answered = [message for message in application.read(application.recommendations) if message.value()]
    assert len({(told["partition"], told["offset"]) for told in map(decoded, answered)}) == len(answered), (
        "no list twice"
    )


def test_an_input_that_is_deleted_under_a_running_worker_stops_it(application: Application, admin: AdminClient) -> None:
    application.produce(records())
    worker = application.start_worker(**SEEN_S)
    has_taken(application, worker)
    admin.delete_topics([application.interactions])[application.interactions].result(30)
    assert "rec2pm topics create" in refusal(worker)


def test_an_output_that_is_deleted_under_a_running_worker_stops_it(
    application: Application, admin: AdminClient
) -> None:
    application.produce(records())
    worker = application.start_worker(**SEEN_S)
    has_taken(application, worker)
    admin.delete_topics([application.recommendations])[application.recommendations].result(30)
    committed = application.committed()
    application.produce(records())
    assert "topic" in refusal(worker)
    assert application.committed() == committed, "what could not be published is not taken"


def test_partitions_that_are_added_to_the_input_stop_the_workers(application: Application, admin: AdminClient) -> None:
    application.produce(records())
    worker = application.start_worker(**SEEN_S)
    has_taken(application, worker)
    added = admin.create_partitions([NewPartitions(application.interactions, PARTITIONS + 2)])
    added[application.interactions].result(30)
    said = refusal(worker)
    assert f"has {PARTITIONS + 2} partitions and had {PARTITIONS}" in said


def test_a_list_that_the_topic_does_not_take_ends_the_worker_and_is_not_passed_over(
    application: Application, admin: AdminClient
) -> None:
    topic = application.recommendations
    entry = ConfigEntry("max.message.bytes", "100", incremental_operation=AlterConfigOpType.SET)
    for future in admin.incremental_alter_configs(
        [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])]
    ).values():
        future.result(30)
    application.produce(records())
    said = refusal(application.start_worker(RECOMMEND="fold"))
    assert "max.message.bytes" in said
    assert application.committed() == 0


def test_a_list_that_the_producer_does_not_take_ends_the_worker_and_is_not_passed_over(
    application: Application,
) -> None:
    """Passed over, the transaction would commit without it."""
    application.produce(records())
    said = refusal(application.start_worker(RECOMMEND="fold", TOP_K=500, KAFKA_MESSAGE_MAX_BYTES=1000))
    assert f"for {application.recommendations} is larger than the producer takes" in said
    assert "REC2PM_KAFKA_MESSAGE_MAX_BYTES" in said
    assert application.committed() == 0


def test_an_error_within_a_rebalance_ends_the_process_before_a_record_is_taken_without_restore(
    application: Application,
) -> None:
    """The client goes on as if nothing had been: the partitions are assigned, and their records would come."""
    application.produce(records())
    orders.write(application.folder, [Order(Point.ASSIGNED, "raise", 1)])
    env = {**application.environ({"METRICS_LISTEN": ""}), "CRASH_FOLDER": str(application.folder)}
    command = [sys.executable, "-m", "tests.crash.worker"]
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as worker:
        assert worker.wait(ENDS_WITHIN_S) == 1
        assert worker.stdout is not None
        assert b"Injected: at assigned" in worker.stdout.read()
    assert application.committed() == 0


def test_a_named_worker_that_restarts_keeps_its_partitions_and_the_others_notice_nothing(
    application: Application,
) -> None:
    def assignments(worker: Running) -> int:
        return worker.log.read_text().count("partitions assigned=")

    one = application.start_worker(WORKER="one", METRICS_LISTEN="")
    two = application.start_worker(WORKER="two", METRICS_LISTEN="")
    application.produce(records())
    has_taken(application, two)
    wait_until(lambda: assignments(one) > 0 and assignments(two) > 0, 60, "both have joined")
    wait_until(lambda: _settled(one) and _settled(two), 60, "partitions are shared")
    before = assignments(one)
    owned = _owned(two)
    assert two.stop()[0] == 0
    application.produce(records())
    again = application.start_worker(WORKER="two", METRICS_LISTEN="")
    has_taken(application, again)
    assert assignments(one) == before
    assert _owned(again) == owned
    assert all("records=0" in line for line in again.log.read_text().splitlines() if " restored partition=" in line), (
        "its stores were kept"
    )
    for worker in (one, again):
        assert worker.stop()[0] == 0


def _owned(worker: Running) -> str:
    return [line for line in worker.log.read_text().splitlines() if " owned=" in line][-1].split(" owned=")[1]


def _settled(worker: Running) -> bool:
    """It has some of the partitions, and their stores are whole."""
    owned: list[int] = json.loads(_owned(worker))
    return 0 < len(owned) < PARTITIONS and all(
        f" restored partition={number} " in worker.log.read_text() for number in owned
    )


def test_a_second_process_under_the_same_name_on_another_machine_puts_the_first_one_out(
    application: Application, tmp_path: Path
) -> None:
    first = application.start_worker(WORKER="one", METRICS_LISTEN="")
    application.produce(records())
    has_taken(application, first)
    second = application.start_worker(WORKER="one", METRICS_LISTEN="", STATE_DIR=tmp_path / "another machine")
    said = refusal(first)
    assert "REC2PM_WORKER" in said
    application.produce(records())
    has_taken(application, second)
    assert second.stop()[0] == 0
    assert application.export()["taken"].sum() == 2 * RECORDS
