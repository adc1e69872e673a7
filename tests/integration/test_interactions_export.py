"""`rec2pm interactions export` beside a broker: the rows are what a worker would remember."""

from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import msgpack
import polars as pl
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from stream.decode import decode
from stream.errors import ExportUnfit
from stream.event import EventReader
from stream.interactions.export import Exported, export
from stream.interactions.window import Window
from stream.kafka import topics
from stream.keys import KeyFormat
from stream.settings import Settings
from stream.wire import Record
from tests.processes import environ, read_committed, rec2pm

PARTITIONS = 2
FROM = 1_700_000_000_000


class Topic:
    """An interactions topic: two partitions with interactions, refused records, null values, markers."""

    def __init__(self, bootstrap: str, app: str) -> None:
        self.bootstrap, self.app, self.name = bootstrap, app, f"{app}.in"
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        topics.create(self.admin, topics.plan(app, self.name, f"{app}.out", PARTITIONS, 1))
        self.settings = Settings.from_environ(
            {"REC2PM_BOOTSTRAP_SERVERS": bootstrap, "REC2PM_APP": app, "REC2PM_INTERACTIONS_TOPIC": self.name}
        )

    def send(self, count: int, *, transaction: str = "", first: int = 0, stamp: int = FROM) -> None:
        producer = Producer(
            {"bootstrap.servers": self.bootstrap}
            | ({"transactional.id": f"{self.app}-up-{first}"} if transaction else {})
        )
        if transaction:
            producer.init_transactions(30)
            producer.begin_transaction()
        for at in range(first, first + count):
            value: bytes | None = msgpack.packb({"item": at if at % 3 else f"item-{at}", "ts": FROM + at})
            if at % 11 == 10:
                value = None
            elif at % 13 == 12:
                value = b"not an interaction"
            producer.produce(self.name, value, f"user-{at % 5}".encode(), at % 2, timestamp=stamp + at)
        assert producer.flush(30) == 0
        if transaction == "commit":
            producer.commit_transaction(30)
        elif transaction == "abort":
            producer.abort_transaction(30)

    def export(self, out: Path, window: Window | None = None, **how: Any) -> Exported:
        kafka = {"bootstrap.servers": self.bootstrap, "group.id": f"{self.app}.reader"}
        return export(
            self.settings,
            kafka,
            topic=self.name,
            window=window or Window(),
            out=out,
            **{"progress": lambda done, of: None, **how},
        )

    def remembered(self, ranges: dict[int, tuple[int, int]]) -> tuple[list[tuple[Any, ...]], int]:
        """What a worker's own decoding makes of a part of the topic, and how many records it refuses."""
        by_partition: dict[int, list[Record]] = defaultdict(list)
        for message in read_committed(self.bootstrap, self.name):
            begin, until = ranges[message.partition() or 0]
            if begin <= (message.offset() or 0) < until:
                by_partition[message.partition() or 0].append(cast("Record", message))
        rows, refused = [], 0
        for number, records in sorted(by_partition.items()):
            polled = decode(records, self.name, {}, {}, EventReader(), KeyFormat())
            refused += len(polled.dead)
            names = polled.names.get(number, {})
            for user, flat in polled.runs[number].items():
                rows += [
                    (user.decode(), names.get(item, str(item)), ms, number, offset)
                    for item, ms, offset in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
                ]
        return sorted(rows, key=lambda row: row[3:]), refused


@pytest.fixture
def topic(bootstrap: str, app: str) -> Topic:
    return Topic(bootstrap, app)


def rows(out: Path) -> list[tuple[Any, ...]]:
    frames = [pl.read_parquet(path) for path in sorted(out.glob("*.parquet"))]
    return [row for frame in frames for row in frame.with_columns(pl.col("item_id").cast(pl.String)).iter_rows()]


@pytest.mark.isolation
def test_the_rows_are_what_a_worker_remembers(topic: Topic, tmp_path: Path) -> None:
    topic.send(60)
    topic.send(30, first=60, transaction="commit")
    topic.send(30, first=90, transaction="abort")
    topic.send(30, first=120, transaction="commit")

    found = topic.export(tmp_path / "out", rows_of_a_file=20)

    expected, refused = topic.remembered(found.partitions)
    assert rows(tmp_path / "out") == expected
    assert (found.rows, found.refused, sum(found.reasons.values())) == (len(expected), refused, refused)
    assert found.forgotten == sum(at % 11 == 10 for at in range(150) if not 90 <= at < 120)
    ends = topic.admin.list_offsets({TopicPartition(topic.name, n): OffsetSpec.latest() for n in range(2)})
    assert found.partitions == {place.partition: (0, asked.result(30).offset) for place, asked in ends.items()}


@pytest.mark.isolation  # the embedded broker knows no times of records
def test_a_window_is_of_offsets_or_of_the_times_of_records(topic: Topic, tmp_path: Path) -> None:
    topic.send(60)
    for name, window, ranges in (
        ("offsets", Window({0: 3}, {0: 9, 1: 4}), {0: (3, 9), 1: (0, 4)}),
        ("times", Window(FROM + 10, FROM + 31), {0: (5, 16), 1: (5, 15)}),
        ("none", Window(FROM + 1_000_000, None), {0: (30, 30), 1: (30, 30)}),
    ):
        found = topic.export(tmp_path / name, window)
        assert found.partitions == ranges, name
        assert rows(tmp_path / name) == topic.remembered(ranges)[0]
    for window, what in (
        (Window({2: 0}), "has no partition 2"),
        (Window(None, {0: 31}), "can be read up to offset 30, not to 31"),
    ):
        with pytest.raises(ExportUnfit, match=what):
            topic.export(tmp_path / "wrong", window)


def test_a_start_after_an_interruption_goes_on_to_the_end_of_the_first(topic: Topic, tmp_path: Path) -> None:
    topic.send(60)
    for count in range(1, 4):

        def killed(done: int, of: int, left: list[int] = [count]) -> None:  # noqa: B006
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            topic.export(tmp_path / "out", rows_of_a_file=10, progress=killed)
        assert not (tmp_path / "out").exists()
        topic.send(2, first=60 + 2 * count)  # behind the end of the first start
    with pytest.raises(ExportUnfit, match="the range was from the beginning until the end and is from 0:1 until"):
        topic.export(tmp_path / "out", Window({0: 1}))

    found = topic.export(tmp_path / "out", rows_of_a_file=10)

    assert found.partitions == {0: (0, 30), 1: (0, 30)}
    assert rows(tmp_path / "out") == topic.remembered(found.partitions)[0]


def test_the_command_says_what_is_in_the_files_and_what_is_not(topic: Topic, tmp_path: Path) -> None:
    topic.send(60)
    env = environ(topic.bootstrap, topic.app)
    said = rec2pm("interactions", "export", "--out", str(tmp_path / "out"), "--until", "0:20", env=env, timeout=60)
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    assert lines[:2] == [f"{topic.name}[0]: offsets 0 to 20", f"{topic.name}[1]: offsets 0 to 30"]
    assert "4 records refused: value starts with byte 0x6e, expected a MessagePack or JSON map with `item`" in lines
    assert lines[-1] == "4 null values: what came before of their users is left out"
    again = rec2pm("interactions", "export", "--out", str(tmp_path / "out"), env=env, timeout=60)
    assert again.returncode == 2
    assert "an export is whole there" in again.stderr
