"""A copy of a whole changelog that follows it: one store per partition, in bounded memory.

A worker restores a partition and then writes it itself. This copy is for a process that owns nothing and only reads:
it holds what workers have committed, a moment later. It goes on where it stopped if its stores still fit.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, IsolationLevel, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from state.changelog import Change
from state.errors import StateError
from state.store import Store, StoreMemory, wipe
from stream.errors import KafkaUnusable
from stream.kafka.errors import comes_back, explained
from stream.kafka.lineage import Changelog
from stream.kafka.options import CHANGELOG_READER, logger_of
from stream.kafka.questions import topic_id
from stream.kafka.record_limits import reading
from stream.kafka.restore import unfit

logger = logging.getLogger(__name__)

STORE_BYTES: Final = 32 << 20
"""For the block caches and write buffers of all partitions together."""
_QUEUE_KB: Final = 16_384
_BATCH: Final = 5000
_CALL_S: Final = 15.0
_NOTES_EVERY_MS: Final = 60_000


class Read(NamedTuple):
    """A record of the changelog as it was written into the copy."""

    change: Change
    at_ms: int
    """When the worker wrote it, epoch ms."""


class ChangelogCopy:
    """Not shared between threads, but for the reads of its stores."""

    def __init__(
        self,
        *,
        topic: str,
        partitions: int,
        options: Mapping[str, Any],
        admin: AdminClient,
        folder: Path,
        deletions_kept_ms: int,
        wall_ms: Callable[[], int],
    ) -> None:
        """Open the stores in `folder`, and begin to read where they end.

        Args:
            partitions: of the changelog.
            options: of a client, `bootstrap.servers` and `group.id` among them.
            deletions_kept_ms: how long the changelog keeps deletions (`delete.retention.ms`).
            wall_ms: the time of day, epoch ms.

        Raises:
            KafkaException: Kafka does not say where the changelog ends.
        """
        self._topic, self._folder, self._wall_ms = topic, folder, wall_ms
        self._memory = StoreMemory(STORE_BYTES)
        self._begun_ms = wall_ms()
        self._noted_ms: dict[int, int] = {}
        self._id = topic_id(admin, topic)
        numbers = range(partitions)
        low, high = (
            {n: self._offset(admin, n, spec()) for n in numbers} for spec in (OffsetSpec.earliest, OffsetSpec.latest)
        )
        self._ends = high
        self.stores: Final[dict[int, Store]] = {}
        self._reached: dict[int, int] = {}
        for number in numbers:
            self._open(number, Changelog(self._id, partitions, low[number], high[number]), deletions_kept_ms)
        self._behind = {number for number in numbers if self._reached[number] < self._ends[number]}
        self._consumer = Consumer(
            reading(
                {
                    "logger": logger_of("copy"),
                    **CHANGELOG_READER,
                    "queued.max.messages.kbytes": _QUEUE_KB,
                    "log_level": 3,
                }
                | dict(options)
            )
        )
        self._consumer.assign(
            [TopicPartition(topic, number, self._reached[number] or OFFSET_BEGINNING) for number in numbers]
        )

    @property
    def at_end(self) -> bool:
        """Whether everything is read that was there at the beginning."""
        return not self._behind

    def _offset(self, admin: AdminClient, number: int, spec: OffsetSpec) -> int:
        place = TopicPartition(self._topic, number)
        asked = admin.list_offsets(
            {place: spec}, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=_CALL_S
        )
        return int(asked[place].result(2 * _CALL_S).offset)

    def _open(self, number: int, changelog: Changelog, kept_ms: int) -> None:
        folder, why = self._folder / str(number), None
        try:
            store = Store(folder, self._memory)
            if store.changelog_offset() is not None:
                why = unfit(store, changelog, now_ms=self._begun_ms, kept_ms=kept_ms)
            if why is not None:
                store.close()
        except StateError as error:
            why = str(error)
        if why is not None:
            logger.warning("copy of the changelog begun again partition=%d reason=%s", number, why)
            wipe(folder)
            store = Store(folder, self._memory)
        if store.changelog_offset() is None:
            store.belong_to(changelog.id)
            store.mark_complete(self._begun_ms)
        self.stores[number], self._reached[number] = store, store.changelog_offset() or 0

    def turn(self, wait_s: float) -> dict[int, list[Read]]:
        """Take in what there is, waiting at most so long for the first of it; returns it by partition.

        Raises:
            KafkaUnusable: the changelog cannot be read any more, or is another one than at the beginning.
        """
        found: dict[int, list[Read]] = {}
        reached: dict[int, int] = {}
        complete: list[int] = []
        for message in self._consumer.consume(_BATCH, wait_s):
            error, number, offset = message.error(), message.partition() or 0, message.offset() or 0
            if error is None:
                change = (message.key() or b"", message.value())
                found.setdefault(number, []).append(Read(change, message.timestamp()[1]))
                reached[number] = offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                reached[number] = offset
                if offset >= self._ends[number]:
                    complete.append(number)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                raise KafkaUnusable(
                    f"{self._topic}[{number}] was deleted and created again, or cut short, while it was read"
                )
            elif not comes_back(error):
                raise KafkaUnusable(f"{self._topic}[{number}] cannot be read: {explained(error)}")
        for number, offset in reached.items():
            self.stores[number].write([each.change for each in found.get(number, ())], offset)
            self._reached[number] = offset
        self._behind.difference_update(complete)
        self._note(complete)
        return found

    def _note(self, complete: Sequence[int]) -> None:
        """Store now and then that a store is complete, so that it is continued after a stop."""
        now = self._wall_ms()
        for number in complete:
            if now - self._noted_ms.get(number, 0) >= _NOTES_EVERY_MS:
                self._noted_ms[number] = now
                self.stores[number].mark_complete(now)

    def close(self) -> None:
        self._consumer.close()
        for store in self.stores.values():
            store.close()
