"""Workers that are broken on purpose, to see that the oracle notices: `python -m tests.crash --break NAME`.

Each is one mistake that frameworks have made, put into a worker's process before it starts. `FAULTS` says under which
faults it shows.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from confluent_kafka import KafkaException, Producer, TopicPartition

from state import changelog
from stream import step
from stream.kafka.lineage import Changelog
from stream.kafka.link import KafkaLink
from stream.partition import Phase
from stream.partitions import Partitions
from stream.ports import Outgoing

VARIABLE: Final = "CRASH_BREAK"


def _store_before_transaction() -> None:
    """RocksDB is written first: what a refused transaction takes back stays in the store."""
    start, publish = KafkaLink.start, KafkaLink.publish
    owned: list[Partitions] = []

    def started(self: KafkaLink, partitions: Partitions) -> None:
        owned.append(partitions)
        start(self, partitions)

    def published(self: KafkaLink, outgoing: Outgoing) -> Mapping[int, int]:
        for number, changes in outgoing.changes.items():
            owned[-1][number].store.write(changes, None)
        return publish(self, outgoing)

    KafkaLink.start, KafkaLink.publish = started, published  # type: ignore[method-assign]


def _offsets_not_sent() -> None:
    """The consumed offsets are committed by the consumer, after the transaction instead of in it: nothing fences who
    owns them no longer.
    """

    class Forgetful(Producer):
        def __init__(self, link: KafkaLink) -> None:
            super().__init__(link._producing)
            self._link, self._offsets = link, list[TopicPartition]()

        def send_offsets_to_transaction(self, offsets: list[TopicPartition], *_: Any) -> None:
            self._offsets = offsets

        def commit_transaction(self, *given: Any) -> None:
            super().commit_transaction(*given)
            with suppress(KafkaException):
                self._link._consumer.commit(offsets=self._offsets, asynchronous=False)

    KafkaLink._new_producer = lambda self: Forgetful(self)  # type: ignore[method-assign]


def _lost_as_revoked() -> None:
    """A partition that is lost is let go of as one that is asked back, by a worker that then takes the store for
    complete.

    Ours notes when it last knew that (`Partitions.known_ms`), which is true of a lost store too; the mistake is to note
    *now*.
    """
    lost = Partitions.lost

    def taken_for_complete(self: Partitions, numbers: Sequence[int]) -> None:
        for number in set(numbers) & set(self.owned()):
            if self[number].phase is not Phase.ASSIGNED:
                self[number].store.mark_complete(time.time_ns() // 1_000_000)
        lost(self, numbers)

    Partitions.lost = taken_for_complete  # type: ignore[method-assign]


def _restore_to_a_wrong_end() -> None:
    """The end of the changelog is its last stable offset, which somebody's open transaction holds back."""
    asked = KafkaLink.changelog

    def changelog(self: KafkaLink, partition: int) -> Changelog | None:
        found = asked(self, partition)
        if found is None:
            return None
        _, stable = self._consumer.get_watermark_offsets(TopicPartition(self.changelog_topic, partition), timeout=10)
        return replace(found, high=stable)

    KafkaLink.changelog = changelog  # type: ignore[method-assign]


def _changelog_read_uncommitted() -> None:
    """A restore takes what was aborted."""
    init = KafkaLink.__init__

    def made(self: KafkaLink, **given: Any) -> None:
        init(self, **given)
        self.changelog_reader["isolation.level"] = "read_uncommitted"

    KafkaLink.__init__ = made  # type: ignore[method-assign]


def _versions_without_marks() -> None:
    """The changelog does not say which version serves."""
    step.marked = lambda *_: []


def _earlier_memories_lost() -> None:
    """A fold in another memory format throws away the memory that it replaces."""
    put_aside = changelog._put_aside

    def thrown_away(changes: Any, user_id: Any, before: Any, memory_format: Any, keep: Any) -> Any:
        return put_aside(changes, user_id, before, memory_format, 0)

    changelog._put_aside = thrown_away


BREAKS: Final[Mapping[str, Callable[[], None]]] = {
    "store-before-transaction": _store_before_transaction,
    "offsets-not-sent": _offsets_not_sent,
    "lost-as-revoked": _lost_as_revoked,
    "restore-to-a-wrong-end": _restore_to_a_wrong_end,
    "changelog-read-uncommitted": _changelog_read_uncommitted,
    "versions-without-marks": _versions_without_marks,
    "earlier-memories-lost": _earlier_memories_lost,
}
FAULTS: Final[Mapping[str, tuple[str, ...]]] = {
    "store-before-transaction": (
        "SIGSTOP past the session at computed",
        "SIGSTOP past the session at produced",
        "SIGKILL at aborted",
    ),
    "offsets-not-sent": ("SIGSTOP past the session at computed", "rebalance storm"),
    "lost-as-revoked": ("SIGSTOP for longer than deletions are kept",),
    "restore-to-a-wrong-end": ("foreign transaction in the changelog",),
    "versions-without-marks": ("promotion within a memory format", "promotion to another memory format"),
    "earlier-memories-lost": ("rollback", "promotion to another memory format"),
    "changelog-read-uncommitted": ("SIGKILL at aborted", "SIGSTOP past the session at produced", "state lost"),
}
