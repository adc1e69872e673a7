"""Rebuild memories in the background, after another memory format began to serve.

A list or a fold rebuilds the memory of its user by itself. The background brings the same memory a little sooner, so a
user's first list need not wait for it, and users who come later than their kept segments last are not worse off. It
works between two steps, on a few users at a time, in a transaction of its own. The transaction commits the offset of
the partition, as that of a step does: Kafka refuses it from a worker that the group has left behind.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from model.errors import ModelFailed
from state.changelog import Change, prepare
from state.codec import ONE_FORMAT, one_format_value
from state.user import Preference, User
from stream.partition import Partition
from stream.partitions import Partitions
from stream.ports import Counts, Learned, Outgoing
from stream.rebuild import rebuilt
from stream.recommender import Recommender
from stream.step import Step, check_segment_length

logger = logging.getLogger(__name__)

MOST: Final = 32
"""Most users in a transaction: live steps wait for it."""
_EVERY_S: Final = 0.1
"""The time between two transactions, if the rate allows it with fewer users than that."""
_LOOK: Final = 64
"""Most users to look at between two steps: reading their memories takes a millisecond."""


@dataclass(slots=True, eq=False)
class _Scan:
    """One pass over a partition's users."""

    partition: Partition
    memory_format: str
    began: float
    after: bytes = b""
    """The last user looked at."""
    looked: int = 0
    rebuilt: int = 0
    failed: int = 0
    done: bool = False


class Refold:
    """The background of one worker. It belongs to the worker's thread."""

    def __init__(self, per_s: int, clock: Callable[[], float]) -> None:
        """Args:
        per_s: most users a second whose memory is rebuilt; 0: none.
        clock: monotonic seconds.
        """
        self._per_s = per_s
        self._clock = clock
        self._batch = max(1, min(MOST, round(per_s * _EVERY_S)))
        self._allowed = 0.0
        self._asked_at = clock()
        self._scans: dict[int, _Scan] = {}
        self._published: Callable[[], None] = lambda: None

    def done(self) -> Mapping[int, bool]:
        """Partition → whether every user has a memory in the format that serves; without those not begun."""
        return {number: scan.done for number, scan in dict(self._scans).items()}

    def next(self, partitions: Partitions, step: Step, input_id: str) -> Outgoing | None:
        """What to publish now, if anything. Call `published` when it is, and what is here before that has no effect.

        Args:
            step: its model serves; its rules say how many segments are kept.
            input_id: Kafka's id of the input topic; empty if the broker has no topic ids.

        Raises:
            SegmentLengthChanged: the stored state was built with another segment length.
            StateCorrupted, StateFormatUnknown: a store cannot be read.
        """
        now = self._clock()
        # A turn that comes late is made up for, longer silence is not.
        self._allowed = min(self._allowed + (now - self._asked_at) * self._per_s, 2 * self._batch)
        self._asked_at = now
        if self._allowed < self._batch or not self._per_s:
            return None
        running = partitions.running()
        self._scans = {number: scan for number, scan in self._scans.items() if number in running}
        for number in running:
            # Where nothing is stored yet, the first step says which format every user has.
            if partitions[number].segment_length() is not None:
                scan = self._scan(partitions[number], step.recommender, now)
                if not scan.done:
                    return self._further(scan, step, input_id)
        return None

    def published(self) -> None:
        """What `next` returned is published."""
        self._published()

    def _scan(self, partition: Partition, recommender: Recommender, now: float) -> _Scan:
        memory_format = recommender.model.memory_format
        done = partition.recorded().one_format == memory_format
        scan = self._scans.get(partition.number)
        if (
            scan is None
            or scan.partition is not partition
            or scan.memory_format != memory_format
            or (scan.done and not done)
        ):
            check_segment_length(partition, recommender.model)
            scan = self._scans[partition.number] = _Scan(partition, memory_format, now)
            if not done:
                logger.info("refold begins partition=%d memory_format=%s", partition.number, memory_format)
        scan.done = done
        return scan

    def _further(self, scan: _Scan, step: Step, input_id: str) -> Outgoing | None:
        """Look at the next users, and rebuild those memories that are in another format."""
        partition = scan.partition
        seen = partition.store.memories(scan.after, _LOOK)
        foreign: list[tuple[bytes, User]] = []
        looked = 0
        for user, state in seen:
            if state.preference is not None and state.memory_of(scan.memory_format) is None:
                if len(foreign) == self._batch:
                    break
                foreign.append((user, state))
            looked += 1
        ends = looked == len(seen) < _LOOK
        made = self._rebuilt(partition.number, foreign, step)

        def published() -> None:
            self._allowed -= len(made)
            scan.after = seen[looked - 1][0] if looked else scan.after
            scan.looked += looked
            scan.rebuilt += len(made)
            scan.failed += len(foreign) - len(made)
            scan.done = ends
            if ends:
                self._ended(scan)

        if not made and not ends:
            published()
            return None
        self._published = published
        changes: list[Change] = []
        for user, state in foreign:
            if user in made:
                prepare(changes, user, state, made[user])
        if ends:
            changes.append((ONE_FORMAT, one_format_value(scan.memory_format)))
        changes += partition.reaching(partition.next_offset, input_id)
        return Outgoing(
            changes={partition.number: changes},
            next_offsets={partition.number: partition.next_offset},
            learned={partition.number: Learned(prepared=made, served=ends)},
            counts=Counts(
                rebuilt=len(made),
                rebuilt_from_part=sum(memory.missing > 0 for memory in made.values()),
                refold_looked=looked,
                refolded=len(made),
            ),
        )

    def _rebuilt(self, number: int, users: Sequence[tuple[bytes, User]], step: Step) -> dict[bytes, Preference]:
        """The memories of users. Those on which the model fails are left out: their next list finds which record."""
        asked = [(number, user, state) for user, state in users]
        try:
            memories = rebuilt(step.partitions, asked, step.recommender, step.rules.keep_segments)
        except ModelFailed as error:
            if len(users) == 1:
                logger.warning("model failed on a memory in the background partition=%d: %s", number, error)
                return {}
            return {user: memory for each in users for user, memory in self._rebuilt(number, [each], step).items()}
        return {user: memory for (_, user, _), memory in zip(asked, memories, strict=True)}

    def _ended(self, scan: _Scan) -> None:
        seconds = max(self._clock() - scan.began, 0.001)
        logger.info(
            "refold ends partition=%d memory_format=%s users=%d rebuilt=%d failed=%d seconds=%.1f users_per_s=%.0f",
            scan.partition.number,
            scan.memory_format,
            scan.looked,
            scan.rebuilt,
            scan.failed,
            seconds,
            scan.looked / seconds,
        )
