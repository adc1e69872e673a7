"""Keys as programs write them, from producer to list: numbers of eight bytes, and partitions by another partitioner."""

import struct
from pathlib import Path

import msgpack
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from bench import null_model
from model.version.registry import Registry
from stream.kafka import topics
from stream.kafka.partitioner import partition_of
from stream.kafka.sample import newest
from tests.processes import environ, read_committed, rec2pm, wait_until, workers

PARTITIONS = 4
USERS = range(40)
NOON = 1_767_225_600_000


def long(user: int) -> bytes:
    return struct.pack(">q", user)


def created(bootstrap: str, app: str) -> None:
    planned = topics.plan(app, f"{app}.in", f"{app}.out", PARTITIONS, 1)
    outcomes = topics.create(AdminClient({"bootstrap.servers": bootstrap}), planned)
    assert {outcome.result for outcome in outcomes} == {"created"}


def test_a_user_whose_key_is_a_number_is_the_same_user_in_every_command(
    bootstrap: str, app: str, tmp_path: Path
) -> None:
    created(bootstrap, app)
    null_model.write(Registry(tmp_path / "models"), segment_length=3)
    folders = {"MODELS": str(tmp_path / "models"), "STATE_DIR": str(tmp_path / "state")}
    env = environ(bootstrap, app, **folders, KEY_FORMAT="long", PARTITIONER="crc32")
    log = tmp_path / "clicks.csv"
    rows = [f"{user},{item},{NOON + item}" for item in range(4) for user in USERS]
    log.write_text("\n".join(["user_id,item_id,timestamp", *rows]))

    produced = rec2pm("produce", str(log), env=env, timeout=60)
    assert produced.returncode == 0, produced.stderr
    sent = read_committed(bootstrap, f"{app}.in")
    assert {message.key() for message in sent} == {long(user) for user in USERS}
    assert all(message.partition() == partition_of(message.key() or b"", PARTITIONS, "crc32") for message in sent)

    checked = rec2pm("topics", "check", env=env, timeout=60)
    assert checked.returncode == 0, checked.stderr
    assert "WARN" not in checked.stdout
    assert (
        f"PASS keys: {len(USERS)} users in the newest 160 records of {app}.in (REC2PM_KEY_FORMAT=long)"
        in checked.stdout
    )
    assert "PASS partitions: 160 keys, each where crc32 sends it" in checked.stdout
    checked = rec2pm("topics", "check", env=environ(bootstrap, app, **folders), timeout=60)
    assert checked.returncode == 1
    assert "WARN keys: 160 of the newest 160 records" in checked.stdout
    assert "All keys fit long: set REC2PM_KEY_FORMAT=long" in checked.stdout
    assert "All 160 fit crc32 (the default of librdkafka): set REC2PM_PARTITIONER=crc32" in checked.stdout
    assert "FAIL refused: 160 of the newest 160 records" in checked.stdout

    with workers(1, env, tmp_path) as (worker,):

        def lists() -> set[bytes | None]:
            return {message.key() for message in read_committed(bootstrap, f"{app}.out")}

        wait_until(
            lambda: lists() == {long(user) for user in USERS}, 60, "each user has a list, under the key of the input"
        )
        shown = rec2pm("user", "show", "17", env=env, timeout=60)
        assert "interactions remembered  4" in shown.stdout, shown.stderr
        forgotten = rec2pm("user", "forget", "17", "--execute", env=env, timeout=120)
        assert forgotten.stdout.splitlines()[-1] == "forgotten", forgotten.stdout + forgotten.stderr
        assert f"{app}.out[{partition_of(long(17), PARTITIONS)}]: holds a list for the user" in forgotten.stdout
        newest_of_17 = [each.value() for each in read_committed(bootstrap, f"{app}.out") if each.key() == long(17)][-1]
        assert newest_of_17 is None
        refused = rec2pm("user", "forget", "anna", env=env, timeout=60)
        assert (refused.returncode, "'anna' is not a user id of REC2PM_KEY_FORMAT=long" in refused.stderr) == (2, True)
        assert "WARNING stream.worker" not in worker.log.read_text()


def test_a_worker_says_which_partitioner_its_producer_has(bootstrap: str, app: str, tmp_path: Path) -> None:
    created(bootstrap, app)
    null_model.write(Registry(tmp_path / "models"), segment_length=3)
    env = environ(bootstrap, app, MODELS=str(tmp_path / "models"), STATE_DIR=str(tmp_path / "state"))
    with workers(1, env, tmp_path) as (worker,):
        for part in range(2):
            producer = Producer({"bootstrap.servers": bootstrap})  # librdkafka's own partitioner
            for user in range(50):
                producer.produce(f"{app}.in", msgpack.packb({"item": part, "ts": NOON}), f"user-{part}-{user}")
            assert producer.flush(30) == 0
            wait_until(
                lambda part=part: (
                    len({each.key() for each in read_committed(bootstrap, f"{app}.out")}) == 50 * (part + 1)
                ),
                60,
                "the worker has taken them",
            )
        warnings = [line for line in worker.log.read_text().splitlines() if "(REC2PM_PARTITIONER)" in line]
    (warning,) = warnings
    assert (
        "fit crc32 (the default of librdkafka): set REC2PM_PARTITIONER=crc32, or partitioner=murmur2_random" in warning
    )


def test_a_sample_has_the_newest_records_of_every_partition(bootstrap: str, app: str) -> None:
    kafka = {"bootstrap.servers": bootstrap}
    admin = _with_topic(kafka, app, 4)
    producer = Producer({"bootstrap.servers": bootstrap})
    for number, count in enumerate((500, 3, 0, 80)):
        for at in range(count):
            producer.produce(app, b"%d" % at, b"key", number)
    assert producer.flush(30) == 0
    sample = newest(admin, kafka, app, 200, 10.0)
    assert (sample.width, sample.complete, len(sample.records)) == (4, True, 200)
    found = {
        number: [int(each.value or b"") for each in sample.records if each.partition == number] for number in range(4)
    }
    assert found == {0: list(range(383, 500)), 1: [0, 1, 2], 2: [], 3: list(range(80))}
    assert newest(admin, kafka, app, 10_000, 10.0).complete


@pytest.mark.isolation
def test_a_sample_leaves_out_what_is_not_committed_and_does_not_wait_for_it(bootstrap: str, app: str) -> None:
    kafka = {"bootstrap.servers": bootstrap}
    admin = _with_topic(kafka, app, 1)
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": app})
    producer.init_transactions(30)
    for value, commits in [(b"1", True), (b"2", False), (b"3", True), (b"4", None)]:
        producer.begin_transaction()
        producer.produce(app, value, b"key")
        producer.flush(30)
        if commits is not None:
            producer.commit_transaction(30) if commits else producer.abort_transaction(30)
    sample = newest(admin, kafka, app, 100, 10.0)
    assert ([each.value for each in sample.records], sample.complete) == ([b"1", b"3"], True)
    assert newest(admin, kafka, app, 100, 0.0).complete is False


def _with_topic(kafka: dict[str, str], name: str, partitions: int) -> AdminClient:
    admin = AdminClient(kafka)
    (outcome,) = topics.create(admin, [topics.TopicSpec(name, "a test", partitions, 1, "delete")])
    assert outcome.result == "created"
    return admin
