"""The partitions that this worker owns, and the life of each.

    assigned ──▶ ASSIGNED ──▶ RESTORING ──▶ RESUMING ──▶ RUNNING
                    ▲           │   ▲          │            │
                    │           │   └─────(1)──┼────────────┤    (1) a step was aborted: read on in the changelog
                    └────(2)────┴──────────────┴────────────┘    (2) the store is damaged: wiped, begun again

    from each of the four    ──▶ REVOKED    Kafka asks for it back: it is ours until we let go, so the store is complete
                             ──▶ LOST       the group went on without us: another owner may have published since

A RESTORING partition reads the changelog. A RESUMING one has read it, and waits for Kafka to say where to go on.

Only RUNNING partitions take records: their stores hold everything that the changelog does. Nothing slow happens inside
a rebalance: stores are opened and restored between steps. No step is under way there either, so neither end has
anything to finish: a revoked store is closed with a note of when it was complete, a lost one without. `MOVES` is this
drawing, and `Partition.become` refuses every other move.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import Enum, auto
from pathlib import Path
from typing import Final, Generic, NamedTuple, Protocol, TypeVar, cast

from state.errors import StateCorrupted, StateError
from state.store import Store, StoreMemory, wipe
from state.user import User
from stream.fault_points import At, Point, passing
from stream.ports import Learned

logger = logging.getLogger(__name__)

_KNOWN_NAMES: Final = 200_000
_AT_ONCE: Final = 4
"""Partitions restored side by side."""


class Phase(Enum):
    ASSIGNED = auto()
    RESTORING = auto()
    RESUMING = auto()
    RUNNING = auto()
    REVOKED = auto()
    LOST = auto()


MOVES: Final[Mapping[Phase, frozenset[Phase]]] = {
    Phase.ASSIGNED: frozenset({Phase.RESTORING, Phase.REVOKED, Phase.LOST}),
    Phase.RESTORING: frozenset({Phase.RESUMING, Phase.ASSIGNED, Phase.REVOKED, Phase.LOST}),
    Phase.RESUMING: frozenset({Phase.RUNNING, Phase.ASSIGNED, Phase.REVOKED, Phase.LOST}),
    Phase.RUNNING: frozenset({Phase.ASSIGNED, Phase.RESTORING, Phase.REVOKED, Phase.LOST}),
    Phase.REVOKED: frozenset(),
    Phase.LOST: frozenset(),
}
OWNED: Final = (Phase.ASSIGNED, Phase.RESTORING, Phase.RESUMING, Phase.RUNNING)


class Progress(NamedTuple):
    """How far a restore is."""

    records: int
    """Read so far."""
    per_s: float
    """Of them, in the mean since the first."""
    remaining: int
    """Offsets between what is restored and the end."""

    @property
    def seconds_left(self) -> float | None:
        """At most, as offsets that compaction has removed are passed in no time; None while there is no rate."""
        return self.remaining / self.per_s if self.per_s else None


class Restore(Protocol):
    """A restore in progress."""

    def advance(self) -> bool:
        """Read and write some more; True when the store holds everything that the changelog does."""

    def progress(self) -> Progress | None:
        """None while the end is not known."""

    def close(self) -> None: ...


V = TypeVar("V")


class Recent(Generic[V]):
    """What was noted of users last, for a bounded number of them: when half of what may be kept is new, the half
    untouched since goes.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[bytes, V] = {}
        self._old: dict[bytes, V] = {}

    def get(self, users: Iterable[bytes]) -> list[V | None]:
        """What is noted of each user; None for those who made room."""
        young, old = self._young.get, self._old.get
        return [old(user) if (noted := young(user)) is None else noted for user in users]

    def note(self, users: Mapping[bytes, V]) -> None:
        self._young.update(users)
        if len(self._young) * 2 > self._size:
            self._young, self._old = {}, self._young

    def clear(self) -> None:
        self._young, self._old = {}, {}


class Partition:
    """One partition's store, and what is known of its users without asking it."""

    def __init__(self, number: int, cache_users: int) -> None:
        self.number: Final = number
        self.phase = Phase.ASSIGNED
        self.restore: Restore | None = None
        self.rebuilt = False
        self.next_offset = 0
        """The lowest offset that its next record can have."""
        self._store: Store | None = None
        self._taken = Recent[int](cache_users)
        self._users = Recent[User](cache_users)
        self._segment_length: int | None = None
        self._named: set[int] = set()

    def reads(self) -> bool:
        """Whether its changelog is being read."""
        return self.restore is not None and self.restore.progress() is not None

    def become(self, phase: Phase) -> None:
        """Raises RuntimeError for a move that the drawing does not have: a mistake of ours, after which nothing is to
        be trusted.
        """
        if phase not in MOVES[self.phase]:
            raise RuntimeError(
                f"partition {self.number} cannot become {phase.name.lower()}: it is {self.phase.name.lower()}"
            )
        self.phase = phase

    @property
    def store(self) -> Store:
        if self._store is None:
            raise RuntimeError(f"partition {self.number} is {self.phase.name.lower()}: its store is not open")
        return self._store

    def open(self, folder: Path, memory: StoreMemory) -> None:
        self._store = Store(folder, memory)

    def reopen_empty(self, memory: StoreMemory) -> None:
        """Throw the store away, because it is not a copy of this changelog, and begin with nothing."""
        store, self._store = self.store, None
        folder = store.folder
        self.forget()
        store.close()
        wipe(folder)
        self._store = Store(folder, memory)

    def segment_length(self) -> int | None:
        """What the users here are folded by; None while nothing is stored."""
        if self._segment_length is None:
            self._segment_length = self.store.segment_length()
        return self._segment_length

    def taken(self, users: Sequence[bytes]) -> list[int]:
        """How many interactions of each user id are remembered. Sorted ids are read fastest."""
        found = self._taken.get(users)
        if None not in found:
            return cast("list[int]", found)
        read = iter(self.store.taken([user for user, taken in zip(users, found, strict=True) if taken is None]))
        return [next(read) if taken is None else taken for taken in found]

    def users(self, asked: Mapping[bytes, int]) -> dict[bytes, User]:
        """The whole state of user ids, each given with what `taken` says of them."""
        found = {
            user: state
            for (user, taken), state in zip(asked.items(), self._users.get(asked), strict=True)
            if state is not None and state.taken == taken
        }
        missing = sorted(asked.keys() - found.keys())
        found.update(zip(missing, self.store.read(missing), strict=True))
        return found

    def learn(self, learned: Learned) -> None:
        """Keep in memory what a published step wrote."""
        self._taken.note(learned.taken)
        self._users.note(learned.users)
        if learned.names:
            self._name(learned.names)

    def forget(self) -> None:
        """Keep nothing in memory."""
        self._taken.clear()
        self._users.clear()
        self._segment_length = None
        self._named.clear()

    def unnamed(self, items: Iterable[int]) -> list[int]:
        """Hashed item keys whose text is not in the store yet."""
        asked = [item for item in items if item not in self._named]
        return self.store.unnamed(asked)

    def _name(self, items: Iterable[int]) -> None:
        if len(self._named) > _KNOWN_NAMES:
            self._named.clear()
        self._named.update(items)

    def mark_complete(self, known_ms: int) -> None:
        """Note that the store lacked nothing at a time, epoch ms; only a running one does."""
        if self.phase is Phase.RUNNING and known_ms > (self.store.complete_ms() or 0):
            self.store.mark_complete(known_ms)

    def close(self) -> None:
        if self.restore is not None:
            self.restore.close()
            self.restore = None
        self.forget()
        if self._store is not None:
            store, self._store = self._store, None
            store.close()


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
        at: At = passing,
    ) -> None:
        """Args:
        folder: this worker's own: a store that no other process writes to needs no agreement on who may.
        begin_restore, resume: called for a partition in this order; `resume` with the offset of the input up to which
            the store has taken, and with that topic's id, again until it says from which offset records will come.
        """
        self._folder = folder
        self._memory = memory
        self._cache_users = cache_users
        self._begin_restore = begin_restore
        self._resume = resume
        self._pause = pause
        self._at = at
        self._owned: dict[int, Partition] = {}
        self.known_ms: int | None = None
        """A time at which every running partition was ours for certain, epoch ms: Kafka took a transaction of this
        worker, and takes none of one who owns less than it says."""

    def __getitem__(self, number: int) -> Partition:
        return self._owned[number]

    def owned(self) -> list[int]:
        return sorted(self._owned)

    def all(self) -> list[Partition]:
        return list(self._owned.values())

    def next_offsets(self) -> dict[int, int]:
        """Partition → the lowest offset that its next record can have."""
        return {number: partition.next_offset for number, partition in self._owned.items()}

    def published(self, next_offsets: Mapping[int, int], known_ms: int) -> None:
        """Kafka took a transaction of this worker, which was sent at a time, epoch ms."""
        self.known_ms = known_ms
        for number, next_offset in next_offsets.items():
            self._owned[number].next_offset = next_offset

    def running(self) -> list[int]:
        return [number for number, partition in self._owned.items() if partition.phase is Phase.RUNNING]

    def assigned(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._owned[number] = Partition(number, self._cache_users)
        logger.info("partitions assigned=%s owned=%s", list(numbers), self.owned())
        self._at(Point.ASSIGNED)

    def revoked(self, numbers: Sequence[int]) -> None:
        """Kafka asks for partitions back. They are ours until this returns: what is in their stores is all there is."""
        for number in set(numbers) & self._owned.keys():
            with _said_of(number):
                self._mark(self._owned[number])
        self._leave(numbers, Phase.REVOKED)

    def lost(self, numbers: Sequence[int]) -> None:
        """The group went on without us: others may have published since, and these stores know nothing of it."""
        self._leave(numbers, Phase.LOST)

    def _leave(self, numbers: Sequence[int], phase: Phase) -> None:
        for number in numbers:
            partition = self._owned.pop(number, None)
            if partition is not None:
                partition.become(phase)
                with _said_of(number):
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
        """After a step that was given up: stores read on in the changelog before partitions run again.

        It knows whether the step is published after all, and what another owner published where the group went on
        without us.
        """
        for number in self.running():
            partition = self._owned[number]
            self._pause(number)
            partition.become(Phase.RESTORING)
            partition.forget()
            partition.restore = self._begin_restore(partition, self._memory)

    def _advance(self, partition: Partition) -> None:
        """Open the store, or read another slice of the changelog into it."""
        try:
            if partition.phase is Phase.ASSIGNED:
                partition.open(self._folder_of(partition), self._memory)
                partition.become(Phase.RESTORING)
                self._at(Point.OPENED)
                partition.restore = self._begin_restore(partition, self._memory)
            if partition.restore is not None and partition.restore.advance():
                partition.restore.close()
                partition.restore = None
                partition.become(Phase.RESUMING)
                self._at(Point.RESTORED)
        except StateCorrupted as error:
            self.rebuild(error)

    def _begin(self, partition: Partition) -> bool:
        """Begin to take a partition's records; False while Kafka does not say where."""
        try:
            next_offset = self._resume(partition.number, partition.store.position(), partition.store.input_id())
        except StateCorrupted as error:
            self.rebuild(error)
            return True
        if next_offset is None:
            return False
        partition.next_offset = next_offset
        partition.become(Phase.RUNNING)
        return True

    def rebuild(self, error: StateCorrupted) -> None:
        """Wipe the store that cannot be read and begin its partition's life again: the changelog has everything.

        Raises:
            StateCorrupted: it is not one of ours, or what came from the changelog cannot be read either.
        """
        # A traceback holds on to what was read from the store, which then keeps its lock when it is closed.
        error = error.with_traceback(None)
        error.__cause__ = error.__context__ = None
        for partition in self._owned.values():
            if error.folder == self._folder_of(partition) and not partition.rebuilt:
                logger.warning("store rebuilt partition=%d reason=%s", partition.number, error)
                if partition.phase is Phase.RUNNING:
                    self._pause(partition.number)
                partition.rebuilt = True
                if partition.phase is not Phase.ASSIGNED:
                    partition.become(Phase.ASSIGNED)
                with suppress(StateError):  # what a damaged store says when it is closed
                    partition.close()
                wipe(self._folder_of(partition))
                return
        raise error

    def _folder_of(self, partition: Partition) -> Path:
        return self._folder / str(partition.number)

    def flush(self) -> None:
        """Bring the stores to disk, with the time at which they are known to have lacked nothing."""
        for number in self.running():
            self._mark(self._owned[number])
            self._owned[number].store.flush()

    def _mark(self, partition: Partition) -> None:
        if self.known_ms is not None:
            partition.mark_complete(self.known_ms)

    def close(self) -> None:
        """Let go of what the group has not asked back: after an error, say."""
        self.lost(self.owned())


@contextmanager
def _said_of(number: int) -> Iterator[None]:
    """A store that cannot be closed well, on a full disk say, is left as a crash would leave it; the changelog has the
    rest.
    """
    try:
        yield
    except StateError as error:
        logger.warning("store not closed partition=%d reason=%s", number, error)
