"""Changelog → store: the bytes of one partition, from the offset that the store reaches to the changelog's end.

The order matters, and was measured (docs/kafka.md). The end is asked for only after Kafka has answered what is committed of the input:
until then a dead predecessor's transaction may still land. The end is the high watermark, which only a read_uncommitted question is told:
the last stable offset hides committed records that lie behind somebody's open transaction. And it is reached when the client reports the
partition's end there, never when some record's offset is compared with it: markers and compaction leave gaps.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from state.changelog import Change
from state.store import StoreMemory
from stream.errors import RestoreBroken
from stream.partitions import Partition
from stream.points import At, Point, passing

logger = logging.getLogger(__name__)

_BATCH: Final = 2000
_WAIT_S: Final = 0.05
_REPORT_EVERY_S: Final = 5.0


class ChangelogRestore:
    """One partition's restore, a slice at a time."""

    def __init__(
        self,
        *,
        topic: str,
        partition: Partition,
        memory: StoreMemory,
        config: Mapping[str, Any],
        settled: Callable[[int], bool],
        bounds: Callable[[int], tuple[int, int] | None],
        clock: Callable[[], float],
        at: At = passing,
    ) -> None:
        """Args:
        config: for a consumer of its own: read_committed, `enable.partition.eof`, `auto.offset.reset=error`.
        settled: whether Kafka has answered what is committed of the input partition.
        bounds: the changelog partition's first offset and high watermark; None when Kafka does not answer now.
        """
        self._topic = topic
        self._partition = partition
        self._memory = memory
        self._config = config
        self._settled = settled
        self._bounds = bounds
        self._clock = clock
        self._at = at
        self._consumer: Consumer | None = None
        self._start = self._end = 0
        self._records = self._bytes = 0
        self._began = self._reported = clock()

    def advance(self) -> bool:
        """Read and write one batch. True when done."""
        if self._consumer is None:
            if not self._settled(self._partition.number):
                return False
            self._begin()
            if self._consumer is None:
                return False
        if self._start >= self._end:
            return self._finish()
        store = self._partition.store
        changes: list[Change] = []
        reached: int | None = None
        done = False
        for message in self._consumer.consume(_BATCH, _WAIT_S):
            error = message.error()
            if error is None:
                key, value = message.key() or b"", message.value()
                changes.append((key, value))
                self._bytes += len(key) + len(value or b"")
                reached = (message.offset() or 0) + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                # It is past the transaction markers, and comes early while a transaction is open.
                reached = message.offset() or 0
                done = reached >= self._end
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                self._start_over(f"offset {self._start} is not in the changelog")
                self._assign(self._consumer)
                return False
            elif error.fatal() or not error.retriable():
                raise RestoreBroken(f"{self._topic}[{self._partition.number}] cannot be read: {error}")
        self._records += len(changes)
        if reached is not None:
            store.write(changes, reached)
            if not done:
                self._at(Point.RESTORING)
        self._report(reached, done=done)
        return done

    def _finish(self) -> bool:
        """There is nothing to read: the store reaches the changelog's end."""
        self._report(self._start, done=True)
        return True

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _begin(self) -> None:
        number = self._partition.number
        bounds = self._bounds(number)
        if bounds is None:
            return
        low, high = bounds
        consumer = Consumer(dict(self._config))
        self._consumer = consumer
        self._start, self._end = self._partition.store.changelog_offset() or 0, high
        if self._start > high or (self._start and self._start < low):
            self._start_over(f"the store reaches offset {self._start}, the changelog has {low} to {high}")
        self._assign(consumer)

    def _assign(self, consumer: Consumer) -> None:
        consumer.assign([TopicPartition(self._topic, self._partition.number, self._start or OFFSET_BEGINNING)])

    def _start_over(self, why: str) -> None:
        """The store is not a copy of this changelog: rebuild it from the beginning."""
        logger.warning("store rebuilt partition=%d reason=%s", self._partition.number, why)
        self._partition.reopen_empty(self._memory)
        self._start = 0

    def _report(self, reached: int | None, *, done: bool) -> None:
        now = self._clock()
        if done or now - self._reported >= _REPORT_EVERY_S:
            self._reported = now
            logger.info(
                "%s partition=%d records=%d bytes=%d reached=%s end=%d seconds=%.2f",
                "restored" if done else "restoring",
                self._partition.number,
                self._records,
                self._bytes,
                reached,
                self._end,
                now - self._began,
            )
