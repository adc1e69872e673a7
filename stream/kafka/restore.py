"""Restore: copy the bytes of one changelog partition into its store, from the offset that the store reaches to the end.

The order matters, and was measured (docs/kafka.md). First Kafka must answer which offset is committed of the input:
until then a transaction of a dead process may still be committed. Only then does the restore ask for the end of the
changelog. The end is the high watermark, which Kafka gives only to a read_uncommitted client. The last stable offset
would hide committed records that come after somebody's open transaction. The restore has reached the end when the
client reports the end of the partition there. Comparing the offsets of records with the end does not work, because
markers and compaction leave gaps.

The restore continues a store only if it is a copy of this changelog, is not longer than it, and was complete within the
time for which the changelog keeps deletions. Otherwise it wipes the store and reads from the beginning.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from state.changelog import Change
from state.store import Store, StoreMemory
from stream.errors import RestoreBroken
from stream.fault_points import At, Point, passing
from stream.kafka import lineage
from stream.kafka.errors import comes_back, explained
from stream.kafka.lineage import Changelog, Committed
from stream.kafka.options import logger_of
from stream.partition import Partition, Progress

logger = logging.getLogger(__name__)

_BATCH: Final = 5000
_WAIT_S: Final = 0.05
_REPORT_EVERY_S: Final = 5.0
_MARGIN: Final = 0.9
"""This share of the time for which the changelog keeps deletions is used: clocks differ, and reading takes a while."""


class ChangelogRestore:
    """One partition's restore, one slice at a time."""

    def __init__(
        self,
        *,
        topic: str,
        partition: Partition,
        memory: StoreMemory,
        config: Mapping[str, Any],
        committed: Callable[[int], Committed | None],
        changelog: Callable[[int], Changelog | None],
        deletions_kept_ms: int,
        clock: Callable[[], float],
        wall_ms: Callable[[], int],
        at: At = passing,
    ) -> None:
        """Args:
        config: of its own consumer: read_committed, `enable.partition.eof`, `auto.offset.reset=error`.
        committed: what is committed of the input partition; None if Kafka has not answered, for example while a
            transaction is open.
        changelog: the changelog partition as it is now; None if Kafka does not answer.
        deletions_kept_ms: how long the changelog keeps the record that a key was deleted (`delete.retention.ms`).
        clock, wall_ms: monotonic seconds, and the time of day in epoch ms.
        """
        self._topic = topic
        self._partition = partition
        self._memory = memory
        self._config = config
        self._committed = committed
        self._changelog = changelog
        self._deletions_kept_ms = deletions_kept_ms
        self._clock = clock
        self._wall_ms = wall_ms
        self._at = at
        self._consumer: Consumer | None = None
        self._began = False
        self._committed_before: Committed | None = None
        """Kafka's answer, which the restore needs before it asks for the changelog's end."""
        self._begun_ms, self._id = 0, ""
        self._reached = self._end = 0
        self._first = OFFSET_BEGINNING
        self._records = self._bytes = 0
        self._reported_records = 0
        self._waiting_since = self._reading_since = self._reported = clock()

    def advance(self) -> bool:
        """Read and write one batch. True when the store is complete.

        Raises:
            ChangelogUnfit: the changelog lacks the state that belongs to the committed offset.
            RestoreBroken: the changelog cannot be read.
        """
        if not self._began and not self._begin():
            self._report_waiting()
            return False
        done = self._reached >= self._end or self._read()
        if not done:
            self._at(Point.RESTORING)
        else:
            self._partition.store.mark_complete(self._begun_ms)
        self._report(done=done)
        return done

    def progress(self) -> Progress | None:
        """None while the end is not known."""
        return self._progress() if self._began else None

    def _progress(self) -> Progress:
        seconds = max(self._clock() - self._reading_since, 1e-3)
        return Progress(self._records, self._records / seconds, max(0, self._end - self._reached))

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _begin(self) -> bool:
        """Start to read; False if Kafka has not answered yet what there is to restore."""
        number = self._partition.number
        if self._committed_before is None:
            self._committed_before = self._committed(number)
            self._begun_ms = self._wall_ms()
        if self._committed_before is None or (changelog := self._changelog(number)) is None:
            return False
        lineage.check(f"{self._topic}[{number}]", self._committed_before.lineage, changelog)
        self._id, self._end = changelog.id, changelog.high
        # An offset, not OFFSET_BEGINNING: the client asks what that is before it is connected, and then half a second
        # later again.
        self._first = changelog.low
        self._reading_since = self._reported = self._clock()
        offset = self._partition.store.changelog_offset()
        if offset is None:
            self._begin_empty()
        elif (
            why := unfit(self._partition.store, changelog, now_ms=self._begun_ms, kept_ms=self._deletions_kept_ms)
        ) is not None:
            self._start_over(why)
        else:
            self._reached = offset
        self._began = True
        return True

    def _read(self) -> bool:
        consumer = self._consumer
        if consumer is None:
            consumer = self._consumer = Consumer(dict(self._config), logger=logger_of("restore"))
            self._assign(consumer)
        changes: list[Change] = []
        reached: int | None = None
        done = False
        for message in consumer.consume(_BATCH, _WAIT_S):
            error = message.error()
            if error is None:
                key, value = message.key() or b"", message.value()
                changes.append((key, value))
                self._bytes += len(key) + len(value or b"")
                reached = (message.offset() or 0) + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                # The offset is after the transaction markers. The report comes early while a transaction is open.
                reached = message.offset() or 0
                done = reached >= self._end
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                self._start_over(f"offset {self._reached} is not in the changelog")
                self._first = OFFSET_BEGINNING  # the first offset that Kafka answered may be gone by now
                self._assign(consumer)
                return False
            elif not comes_back(error):
                raise RestoreBroken(f"{self._topic}[{self._partition.number}] cannot be read: {explained(error)}")
        self._records += len(changes)
        if reached is not None:
            self._partition.store.write(changes, reached)
            self._reached = reached
        return done

    def _assign(self, consumer: Consumer) -> None:
        consumer.assign([TopicPartition(self._topic, self._partition.number, self._reached or self._first)])

    def _start_over(self, why: str) -> None:
        """Wipe a store that cannot be continued, and read the changelog from the beginning."""
        logger.warning("store wiped partition=%d reason=%s", self._partition.number, why)
        self._partition.reopen_empty(self._memory)
        self._begin_empty()

    def _begin_empty(self) -> None:
        store, self._reached = self._partition.store, 0
        store.belong_to(self._id)
        # An empty store cannot hold anything that was deleted before now.
        store.mark_complete(self._begun_ms)

    def _report_waiting(self) -> None:
        now = self._clock()
        if now - self._reported >= _REPORT_EVERY_S:
            self._reported = now
            logger.warning(
                "restore waits partition=%d seconds=%.0f: %s",
                self._partition.number,
                now - self._waiting_since,
                "Kafka has not answered what is committed of it; it does not answer while a transaction with these offsets is open"
                if self._committed_before is None
                else "Kafka has not answered how long its changelog is",
            )

    def _report(self, *, done: bool) -> None:
        now = self._clock()
        if not done and now - self._reported < _REPORT_EVERY_S:
            return
        self._reported = now
        silent = self._records == self._reported_records
        self._reported_records = self._records
        if silent and not done:
            logger.warning(
                "restore waits partition=%d at=%d end=%d: no records arrive. If Kafka answers, a transaction is open there. "
                "Kafka ends it after its time-out; if not, kafka-transactions.sh find-hanging --broker-id ID names it and "
                "kafka-transactions.sh abort ends it",
                self._partition.number,
                self._reached,
                self._end,
            )
            return
        progress = self._progress()
        left = "unknown" if progress.seconds_left is None else f"{progress.seconds_left:.0f}"
        logger.info(
            "%s partition=%d records=%d bytes=%d per_s=%.0f reached=%d end=%d %s",
            "restored" if done else "restoring",
            self._partition.number,
            self._records,
            self._bytes,
            progress.per_s,
            self._reached,
            self._end,
            f"waited_s={self._reading_since - self._waiting_since:.2f} seconds={now - self._reading_since:.2f}"
            if done
            else f"seconds_left={left}",
        )


def unfit(store: Store, changelog: Changelog, *, now_ms: int, kept_ms: int) -> str | None:
    """Why a store that was written to cannot be continued as a copy of this changelog; None if it can.

    Args:
        now_ms: epoch ms; not later than when `changelog` was asked for.
        kept_ms: how long the changelog keeps the record that a key was deleted (`delete.retention.ms`).
    """
    if (known := store.changelog_id()) is None or (changelog.id and known != changelog.id):
        return f"it is a copy of changelog {known or 'unknown'}, this one is {changelog.id or 'unknown'}"
    offset = store.changelog_offset() or 0
    if offset > changelog.high or offset < changelog.low:
        return f"it reaches offset {offset}, the changelog has {changelog.low} to {changelog.high}"
    hours, kept = (now_ms - (store.complete_ms() or 0)) / 3_600_000, kept_ms / 3_600_000
    if hours > kept * _MARGIN:
        return (
            f"it was complete {hours:.1f} hours ago, and the changelog keeps deletions for {kept:.1f} hours: the "
            "store may hold what was deleted since"
        )
    return None
