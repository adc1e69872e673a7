"""`rec2pm user forget`: a preview that sends nothing, a user of whom nothing is left, down to the bytes of Kafka's log
files.
"""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgpack
import pytest
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from bench import null_model
from model.version.registry import Registry
from state.codec import user_prefix, working_key, working_value
from stream.commands.broker import Broker
from stream.kafka import topics
from stream.kafka.partitioner import partition_of
from tests.processes import environ, read_committed, rec2pm, wait_until, workers

PARTITIONS = 2
SEGMENT = 3
GONE = "user-to-be-forgotten-é"
OTHERS = [f"user-who-stays-{number}" for number in range(8)]


@dataclass
class Shop:
    """An application: its topics, and a way to send interactions."""

    bootstrap: str
    app: str
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        return environ(
            self.bootstrap,
            self.app,
            MODELS=str(self.folder / "models"),
            STATE_DIR=str(self.folder / "state"),
            KAFKA_COMPRESSION_TYPE="none",  # so that bytes can be searched for
        )

    @property
    def input(self) -> str:
        return f"{self.app}.in"

    def create(self, **settings: str) -> None:
        planned = topics.plan(self.app, self.input, f"{self.app}.out", PARTITIONS, 1)
        planned = [
            replace(topic, settings=tuple(settings.items())) if topic.cleanup == "compact" else topic
            for topic in planned
        ]
        outcomes = topics.create(AdminClient({"bootstrap.servers": self.bootstrap}), planned)
        assert {outcome.result for outcome in outcomes} == {"created"}, outcomes

    @contextmanager
    def worker(self) -> Iterator[None]:
        null_model.write(Registry(self.folder / "models"), segment_length=SEGMENT)
        with workers(1, self.env, self.folder) as (process,):
            yield
            assert process.running(), process.log.read_text()[-2000:]

    def send(self, user: str, items: int, partition: int = -1) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "partitioner": "murmur2_random"})
        for item in range(items):
            producer.produce(
                self.input, msgpack.packb({"item": item, "ts": 1_700_000_000_000 + item}), user.encode(), partition
            )
        assert producer.flush(30) == 0

    def nulls(self) -> list[Message]:
        return [message for message in read_committed(self.bootstrap, self.input) if message.value() is None]

    def taken(self, user: str) -> int:
        """Interactions remembered, over all partitions."""
        said = rec2pm("user", "show", user, env=self.env, timeout=60)
        return sum(
            int(line.split()[2].rstrip(",")) for line in said.stdout.splitlines() if "interactions remembered" in line
        )

    def remember_by_hand(self, user: str) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap})
        producer.produce(f"{self.app}.changelog", working_value([7], [5]), working_key(user.encode(), 1), 0)
        assert producer.flush(30) == 0

    def forget(self, user: str, *options: str) -> subprocess.CompletedProcess[str]:
        said = rec2pm("user", "forget", user, *options, env=self.env, timeout=120)
        assert "Traceback" not in said.stderr
        return said


@pytest.fixture
def shop(bootstrap: str, app: str, tmp_path: Path) -> Shop:
    return Shop(bootstrap, app, tmp_path)


def test_without_topics_it_is_one_line_and_wrong_usage(shop: Shop) -> None:
    said = shop.forget(GONE, "--execute")
    assert said.returncode == 2
    assert said.stderr.count("\n") == 1
    assert "rec2pm topics create" in said.stderr


def test_a_preview_tells_what_is_remembered_and_sends_nothing(shop: Shop) -> None:
    shop.create()
    shop.remember_by_hand(GONE)
    for options in ([], ["--dry-run"]):
        said = shop.forget(GONE, *options)
        assert said.returncode == 0
        assert said.stdout.splitlines() == [
            f"{shop.app}.changelog[0]: 1 interaction remembered, 0 segments folded, 0 of them kept (1 changelog record)",
            f"would send a null value to {', '.join(f'{shop.input}[{number}]' for number in sorted({0, partition_of(GONE.encode(), 2)}))}",
            "nothing was sent: add --execute to send",
        ]
    assert shop.nulls() == []


def test_of_a_user_of_whom_nothing_is_known_it_says_so_and_sends_a_null_all_the_same(shop: Shop) -> None:
    shop.create()
    said = shop.forget(GONE)
    assert (said.returncode, said.stdout.splitlines()[0]) == (0, f"nothing is remembered about user {GONE!r}")
    assert shop.nulls() == []
    said = shop.forget(GONE, "--execute", "--wait", "0.5")
    assert said.returncode == 1
    assert f"no worker of {shop.app} has processed the null value within 0.5 s" in said.stderr
    (null,) = shop.nulls()
    assert null.key() == GONE.encode()


def test_a_null_goes_to_where_the_users_interactions_go(shop: Shop) -> None:
    shop.create()
    for number in range(6):
        shop.send(f"user-{number}", 1)
        shop.forget(f"user-{number}", "--execute", "--wait", "0")
    places: dict[bytes | None, set[int | None]] = {}
    for message in read_committed(shop.bootstrap, shop.input):
        places.setdefault(message.key(), set()).add(message.partition())
    assert {len(numbers) for numbers in places.values()} == {1}
    assert len(set.union(*places.values())) == PARTITIONS, "in either"


def test_a_user_is_forgotten_wherever_they_are_and_others_are_not(shop: Shop) -> None:
    shop.create()
    with shop.worker():
        home = partition_of(GONE.encode(), PARTITIONS)
        shop.send(GONE, 3 * SEGMENT + 1)
        shop.send(GONE, 2, partition=1 - home)
        shop.send(OTHERS[0], SEGMENT)
        wait_until(
            lambda: shop.taken(GONE) == 3 * SEGMENT + 3 and shop.taken(OTHERS[0]) == SEGMENT, 60, "all is remembered"
        )
        said = shop.forget(GONE, "--execute")
        assert said.returncode == 0, said.stderr
        assert (
            f"{shop.app}.changelog[{home}]: 10 interactions remembered, 3 segments folded, 3 of them kept"
            in said.stdout
        )
        assert (
            f"{shop.app}.changelog[{1 - home}]: 2 interactions remembered, 0 segments folded, 0 of them kept"
            in said.stdout
        )
        assert f"{shop.app}.out[{home}]: holds a list for the user" in said.stdout
        assert said.stdout.splitlines()[-1] == "forgotten"
        newest = {message.key(): message.value() for message in read_committed(shop.bootstrap, f"{shop.app}.out")}
        assert newest[GONE.encode()] is None
        assert newest[OTHERS[0].encode()] is not None
        assert (shop.taken(GONE), shop.taken(OTHERS[0])) == (0, SEGMENT)
        left = {message.key(): message.value() for message in read_committed(shop.bootstrap, f"{shop.app}.changelog")}
        mine = [value for key, value in left.items() if key is not None and key.startswith(user_prefix(GONE.encode()))]
        assert mine
        assert set(mine) == {None}
        assert "holds a list" not in shop.forget(GONE).stdout


def test_a_user_who_goes_on_meanwhile_is_forgotten_and_told_to_be_active_again(shop: Shop) -> None:
    shop.create()
    with shop.worker():
        shop.send(GONE, 1)
        wait_until(lambda: shop.taken(GONE) == 1, 60, "remembered")
        over = threading.Event()

        def goes_on() -> None:
            while not over.wait(0.02):
                shop.send(GONE, 1)

        going_on = threading.Thread(target=goes_on)
        going_on.start()
        try:
            said = shop.forget(GONE, "--execute")
        finally:
            over.set()
            going_on.join()
        assert (said.returncode, said.stdout.splitlines()[-1]) == (
            0,
            "forgotten; the user has been active since, and those interactions are remembered",
        )


def test_records_that_a_worker_left_behind_are_not_called_forgotten(shop: Shop) -> None:
    """A group that has come further than its changelog says: no worker of ours would."""
    shop.create()
    shop.remember_by_hand(GONE)
    consumer = Consumer({"bootstrap.servers": shop.bootstrap, "group.id": shop.app})

    def commits() -> bool:
        try:
            consumer.commit(
                offsets=[TopicPartition(shop.input, number, 1_000) for number in range(PARTITIONS)], asynchronous=False
            )
        except KafkaException:  # the group's coordinator is being made
            return False
        return True

    wait_until(commits, 30, "a commit")
    consumer.close()
    said = shop.forget(GONE, "--execute")
    assert said.returncode == 1
    assert "not forgotten" in said.stderr
    assert "still has records from before" in said.stderr


@pytest.mark.isolation
def test_after_compaction_kafkas_log_files_have_not_one_byte_sequence_of_the_user(shop: Shop, broker: Broker) -> None:
    files_with = broker.files_with
    if files_with is None:
        pytest.skip("where this broker has its log files is not known: unset REC2PM_TEST_BOOTSTRAP, set KAFKA_HOME")
    # A day of `topics create` in a second: segments roll, are compacted, and tombstones go, as records come.
    shop.create(
        **{
            "max.compaction.lag.ms": "1000",
            "segment.ms": "1000",
            "min.cleanable.dirty.ratio": "0.01",
            "delete.retention.ms": "0",
            "file.delete.delay.ms": "0",
        }
    )
    made_of_it = (f"{shop.app}.changelog", f"{shop.app}.out")

    def holding(user: str) -> set[str]:
        """The topics, the input aside, that have the user's id in any file."""
        held = {path.parent.name.rsplit("-", 1)[0] for path in files_with(user)}
        return {topic for topic in held if topic.startswith(f"{shop.app}.") and topic != shop.input}

    with shop.worker():
        for user in [GONE, *OTHERS]:
            shop.send(user, 3 * SEGMENT + 1)
        wait_until(
            lambda: all(holding(user) == set(made_of_it) for user in [GONE, *OTHERS]),
            60,
            "everybody is in the log files",
        )
        said = shop.forget(GONE, "--execute")
        assert (said.returncode, said.stdout.splitlines()[-1]) == (0, "forgotten"), said.stderr

        def gone() -> bool:
            for user in OTHERS:
                shop.send(user, 1)
            return not holding(GONE)

        wait_until(gone, 120, "no log file has the user")
    assert all(holding(user) == set(made_of_it) for user in OTHERS)
    assert all(shop.taken(user) > 3 * SEGMENT for user in OTHERS[:2])
