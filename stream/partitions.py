"""The partitions that this worker owns: assigned, restored, revoked or lost (`stream.partition` draws their life).

Nothing slow happens inside a rebalance: stores are opened and restored between steps. No step is under way there
either, so neither end has anything to finish: a revoked store is closed with a note of when it was complete, a lost one
without.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, get_args

from state.errors import StateCorrupted, StateError
from state.store import StoreMemory, bytes_below
from state.store import wipe as wipe_folder
from stream.fault_points import At, Point, passing
from stream.partition import Partition, Phase, Restore
from stream.ports import Empty

logger = logging.getLogger(__name__)

RestoreReason = Literal["assigned", "step_aborted", "store_wiped"]
RESTORE_REASONS: Final[tuple[RestoreReason, ...]] = get_args(RestoreReason)
"""Why a changelog is read: a partition came; a step was aborted, so its newest records are read; a damaged store was
wiped.
"""
_AT_ONCE: Final = 4
"""Partitions restored side by side."""


class Partitions:
    """What this worker owns. Its own record of it: the client goes on naming partitions that it has lost."""

    def __init__(
        self,
        *,
        folder: Path,
        memory: StoreMemory,
        cache_users: int,
        begin_restore: Callable[[Partition, StoreMemory], Restore],
        resume: Callable[[int, int | None, str | None], int | None],
        pause: Callable[[int], None],
        check: Callable[[Partition], None] = lambda _: None,
        at: At = passing,
    ) -> None:
        """Args:
        folder: this worker's own. No other process writes to stores in it.
        begin_restore: called first for a partition.
        resume: called then, with the position stored with the state and the id of its input topic, again and again
            until it answers with the offset from which records will come.
        pause: stop the records of a partition until the next `resume`.
        check: called when a store is complete, before its partition runs; raises if the model cannot serve its state.
        """
        self._folder = folder
        self._memory = memory
        self._cache_users = cache_users
        self._begin_restore = begin_restore
        self._resume = resume
        self._pause = pause
        self._check = check
        self._at = at
        self._owned: dict[int, Partition] = {}
        self.restores: dict[RestoreReason, int] = dict.fromkeys(RESTORE_REASONS, 0)
        """Restores that began, by their reasons."""
        self.joined = False
        """Whether the group has given this worker its partitions, perhaps none."""
        self.known_ms: int | None = None
        """When every running partition was certainly ours, epoch ms: Kafka accepted a transaction of this worker then,
        and accepts none of a worker that owns less than it says.
        """

    def __getitem__(self, number: int) -> Partition:
        return self._owned[number]

    def owned(self) -> list[int]:
        return sorted(self._owned)

    def all(self) -> list[Partition]:
        return list(self._owned.values())

    def positions(self) -> dict[int, int]:
        """Running partition → the lowest offset that its next record can have."""
        return {number: self._owned[number].next_offset for number in self.running()}

    def reached(self) -> dict[int, int]:
        """As `next_offsets`, of the partitions that have run: of others it is not known. Any thread may ask."""
        return {
            partition.number: partition.next_offset
            for partition in self.all()
            if partition.phase is Phase.RUNNING or partition.next_offset
        }

    def store_bytes(self) -> dict[int, int]:
        """Partition → the bytes of its files. Any thread may ask."""
        return {
            number: bytes_below(self._folder / str(number)) for number in sorted(each.number for each in self.all())
        }

    def next_offsets(self) -> dict[int, int]:
        """Partition → the lowest offset that its next record can have."""
        return {number: partition.next_offset for number, partition in self._owned.items()}

    def passing(self, empty: Mapping[int, Empty]) -> dict[int, int]:
        """The running partitions that stand before offsets without a record, each with the offset after them."""
        return {
            number: after.end
            for number, after in empty.items()
            if number in self.running() and after.start <= self._owned[number].next_offset < after.end
        }

    def published(self, next_offsets: Mapping[int, int], known_ms: int) -> None:
        """Kafka accepted a transaction of this worker.

        Args:
            next_offsets: partition → the offset to read next.
            known_ms: when it was sent, epoch ms.
        """
        self.known_ms = known_ms
        for number, next_offset in next_offsets.items():
            self._owned[number].next_offset = next_offset

    def running(self) -> list[int]:
        return [number for number, partition in self._owned.items() if partition.phase is Phase.RUNNING]

    def assigned(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._owned[number] = Partition(number, self._cache_users)
        self.joined = True
        logger.info("partitions assigned=%s owned=%s", list(numbers), self.owned())
        self._at(Point.ASSIGNED)

    def revoked(self, numbers: Sequence[int]) -> None:
        """Kafka asks for partitions back. They are ours until this returns, so their stores are complete."""
        for number in set(numbers) & self._owned.keys():
            with _logged(number):
                self._mark(self._owned[number])
        self._leave(numbers, Phase.REVOKED)

    def lost(self, numbers: Sequence[int]) -> None:
        """The group went on without us. Other owners may have published since, which these stores do not have."""
        self.joined = False
        self._leave(numbers, Phase.LOST)

    def _leave(self, numbers: Sequence[int], phase: Phase) -> None:
        for number in numbers:
            partition = self._owned.pop(number, None)
            if partition is not None:
                partition.become(phase)
                with _logged(number):
                    partition.close()
        logger.info("partitions %s=%s owned=%s", phase.name.lower(), list(numbers), self.owned())
        self._at(Point.GONE)

    def restore(self) -> bool:
        """Bring partitions that were assigned a little closer to running; True while some are not there yet."""
        waiting = [partition for partition in self._owned.values() if partition.phase is not Phase.RUNNING]
        reading = [partition for partition in waiting if partition.reads()]
        # A restore that waits for Kafka's answer takes no turn from those that could read.
        others = [
            partition for partition in waiting if partition not in reading and partition.phase is not Phase.RESUMING
        ]
        for partition in reading:
            self._advance(partition)
        for partition in others:
            if self._reading() < _AT_ONCE:
                self._advance(partition)
        for partition in waiting:
            # Each question may take a while: after one without an answer, the others ask in the next turn.
            if partition.phase is Phase.RESUMING and not self._begin(partition):
                break
        return any(partition.phase is not Phase.RUNNING for partition in waiting)

    def _reading(self) -> int:
        """How many changelogs are being read."""
        return sum(partition.reads() for partition in self._owned.values())

    def reads(self) -> bool:
        """Whether a changelog is being read: the next turn should come soon."""
        return self._reading() > 0

    def catch_up(self) -> None:
        """After an aborted step: read on in the changelog before partitions run again.

        The changelog knows whether the step was published after all, and what another owner published if the group
        went on without us.
        """
        for number in self.running():
            partition = self._owned[number]
            self._pause(number)
            partition.become(Phase.RESTORING)
            partition.forget()
            partition.restore = self._begin_restore(partition, self._memory)
            self.restores["step_aborted"] += 1

    def _advance(self, partition: Partition) -> None:
        """Open the store, or read another slice of the changelog into it."""
        try:
            if partition.phase is Phase.ASSIGNED:
                partition.open(self._folder_of(partition), self._memory)
                partition.become(Phase.RESTORING)
                self._at(Point.OPENED)
                partition.restore = self._begin_restore(partition, self._memory)
                self.restores["store_wiped" if partition.wiped else "assigned"] += 1
            if partition.restore is not None and partition.restore.advance():
                partition.restore.close()
                partition.restore = None
                partition.become(Phase.RESUMING)
                self._at(Point.RESTORED)
        except StateCorrupted as error:
            self.wipe(error)

    def _begin(self, partition: Partition) -> bool:
        """Begin to take a partition's records; False while Kafka does not say where.

        Raises:
            SegmentLengthChanged, StateFormatUnknown: the worker cannot continue from this state.
        """
        try:
            self._check(partition)
            next_offset = self._resume(partition.number, partition.store.position(), partition.store.input_id())
        except StateCorrupted as error:
            self.wipe(error)
            return True
        if next_offset is None:
            return False
        partition.next_offset = next_offset
        partition.become(Phase.RUNNING)
        return True

    def wipe(self, error: StateCorrupted) -> None:
        """Wipe the store that cannot be read and begin its partition's life again. The changelog has everything.

        Raises:
            StateCorrupted: it is not one of ours, or what came from the changelog cannot be read either.
        """
        # A traceback holds on to what was read from the store, which then keeps its lock when it is closed.
        error = error.with_traceback(None)
        error.__cause__ = error.__context__ = None
        for partition in self._owned.values():
            if error.folder == self._folder_of(partition) and not partition.wiped:
                logger.warning("store wiped partition=%d reason=%s", partition.number, error)
                if partition.phase is Phase.RUNNING:
                    self._pause(partition.number)
                partition.wiped = True
                if partition.phase is not Phase.ASSIGNED:
                    partition.become(Phase.ASSIGNED)
                with suppress(StateError):  # what a damaged store says when it is closed
                    partition.close()
                wipe_folder(self._folder_of(partition))
                return
        raise error

    def _folder_of(self, partition: Partition) -> Path:
        return self._folder / str(partition.number)

    def flush(self) -> None:
        """Bring the stores to disk, with the time at which they are known to have been complete."""
        for number in self.running():
            self._mark(self._owned[number])
            self._owned[number].store.flush()

    def _mark(self, partition: Partition) -> None:
        if self.known_ms is not None:
            partition.mark_complete(self.known_ms)

    def close(self) -> None:
        """Give up what the group has not asked back, as after an error."""
        self.lost(self.owned())


@contextmanager
def _logged(number: int) -> Iterator[None]:
    """A store that cannot be closed well, on a full disk for one, is left as a crash would leave it. The changelog has
    the rest.
    """
    try:
        yield
    except StateError as error:
        logger.warning("store not closed partition=%d reason=%s", number, error)
