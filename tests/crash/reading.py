"""What is committed, read back from a broker: the oracle's evidence. Nothing of a worker is asked, and nothing of its
local stores.
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import polars as pl
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from stream.commands.export_state import export
from tests.crash.served import Mark, Promoted, Stored, marks, memories, promotions
from tests.crash.taken import Taken
from tests.processes import wait_until

_BATCH = 5000
_SETTLED_WITHIN_S = 60.0


@dataclass(slots=True)
class Observed:
    """All that a read_committed reader can know of an application. Each is gone through once."""

    interactions: Iterable[Taken]
    """The input: partition after partition, each in the order of its offsets."""
    recommendations: Iterable[Taken]
    states: Iterable[Mapping[str, Any]]
    """The rows of `rec2pm state export`."""
    dead_letters: Iterable[Taken] = field(default_factory=list)
    marks: Mapping[int, Sequence[Mark]] = field(default_factory=dict)
    """Partition → which version served it from which offset on."""
    memories: Mapping[tuple[int, str], Sequence[Stored]] = field(default_factory=dict)
    """Partition and user → the preference memories in the changelog, of any format."""
    promotions: Sequence[Promoted] = ()
    excused: Sequence[tuple[int, int]] = ()
    """Times, epoch ms, from which to which a worker could not fetch what had been promoted."""


class Kept:
    """The committed records of an input that were read before they were deleted.

    A broker that is killed may bring deleted records back: Kafka writes down only now and then where a log begins. So a
    record counts once, by its offset.
    """

    def __init__(self) -> None:
        self._records: defaultdict[int, list[Taken]] = defaultdict(list)
        self.deletions = 0

    def add(self, bootstrap: str, topic: str) -> None:
        """Keep all records that the topic holds now. They are about to be deleted."""
        for record in records(bootstrap, topic):
            if record.offset > self._last(record.partition):
                self._records[record.partition].append(record)
        self.deletions += 1

    def _last(self, partition: int) -> int:
        kept = self._records.get(partition)
        return kept[-1].offset if kept else -1

    def and_then(self, left: Iterable[Taken]) -> Iterator[Taken]:
        """Partition after partition: what was kept, then what the topic still holds."""
        before = dict(self._records)
        for number, group in groupby(left, key=lambda record: record.partition):
            last = self._last(number)
            yield from before.pop(number, ())
            yield from (record for record in group if record.offset > last)
        for kept in before.values():
            yield from kept


def observe(bootstrap: str, app: str, interactions: str, recommendations: str, kept: Kept) -> Observed:
    """Read an application whose workers have ended."""
    changelog, dead_letters, models = f"{app}.changelog", f"{app}.dead-letter", f"{app}.models"
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    promoting = [models] if models in admin.list_topics(timeout=30).topics else []
    wait_until_settled(bootstrap, [interactions, changelog, recommendations, dead_letters, *promoting])
    with tempfile.TemporaryDirectory(prefix="rec2pm-crash-") as scratch:
        out = Path(scratch) / "states.parquet"
        export({"bootstrap.servers": bootstrap}, changelog, interactions, out, lambda done, of: None)
        states = pl.read_parquet(out)
    return Observed(
        kept.and_then(records(bootstrap, interactions)),
        records(bootstrap, recommendations),
        states.iter_rows(named=True),
        records(bootstrap, dead_letters, headers=True),
        marks(records(bootstrap, changelog)),
        memories(records(bootstrap, changelog)),
        promotions(chain.from_iterable(records(bootstrap, each) for each in promoting)),
    )


def records(bootstrap: str, topic: str, *, headers: bool = False) -> Iterator[Taken]:
    """Every committed record of a topic up to its present end, partition after partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "rec2pm-crash-reader",  # asked for by the client; nothing is joined
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 10,
            "fetch.wait.max.ms": 20,
            "log_level": 3,  # it begins at offset 0, which may be deleted
        }
    )
    try:
        for number in sorted(consumer.list_topics(topic, timeout=30).topics[topic].partitions):
            consumer.assign([TopicPartition(topic, number, 0)])
            yield from _partition(consumer, number, headers=headers)
    finally:
        consumer.close()


def _partition(consumer: Consumer, number: int, *, headers: bool) -> Iterator[Taken]:
    while True:
        for message in consumer.consume(_BATCH, 0.2):
            error = message.error()
            if error is None:
                more = tuple(message.headers() or ()) if headers else ()
                yield Taken(number, message.offset(), message.key(), message.value(), message.timestamp()[1], more)  # type: ignore[arg-type]
            elif error.code() == KafkaError._PARTITION_EOF:
                return
            elif error.fatal() or not error.retriable():
                raise KafkaException(error)


def ends(
    admin: AdminClient, places: Iterable[TopicPartition], *, committed: bool = False, timeout_s: float = 10.0
) -> dict[int, int]:
    """The end offset of each partition of one topic; with `committed`, the end of what a read_committed reader sees."""
    level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    asked = admin.list_offsets(
        {place: OffsetSpec.latest() for place in places}, isolation_level=level, request_timeout=timeout_s
    )
    return {place.partition: future.result(timeout_s).offset for place, future in asked.items()}


def places_of(admin: AdminClient, topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in admin.list_topics(topic, timeout=30).topics[topic].partitions]


def wait_until_settled(bootstrap: str, topics: Iterable[str]) -> None:
    """Until no transaction is open in these topics: behind one, a read_committed reader sees nothing."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    for topic in topics:
        places = places_of(admin, topic)
        wait_until(
            lambda places=places: ends(admin, places) == ends(admin, places, committed=True),  # type: ignore[misc]
            _SETTLED_WITHIN_S,
            f"no transaction is open in {topic}",
        )
