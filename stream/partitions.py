"""The partitions that this worker owns, and the life of each.

    assigned ──▶ restoring ──▶ running ──▶ revoked or lost
                                   (gone: its store is closed, its users forgotten here)

A partition's records are consumed only while it is running: its store then holds everything that the changelog does. Nothing slow
happens inside a rebalance: stores open and are restored between steps.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar, cast

from state.errors import StateCorrupted, StateError, StoreLocked
from state.store import Store, StoreMemory, wipe
from state.user import User
from stream.points import At, Point, passing

logger = logging.getLogger(__name__)

LOCK_WAIT_S: Final = 60.0
"""How long the partition's last owner on this machine may take to let go of its store."""
_KNOWN_NAMES: Final = 200_000
_AT_ONCE: Final = 4
"""Partitions restored side by side."""


class Phase(Enum):
    ASSIGNED = auto()
    RESTORING = auto()
    RUNNING = auto()


class Restore(Protocol):
    """A restore in progress."""

    def advance(self) -> bool:
        """Read and write some more; True when the store holds everything that the changelog does."""

    def close(self) -> None: ...


V = TypeVar("V")


class Recent(Generic[V]):
    """What was noted of users last, for a bounded number of them: when half of what may be kept is new, the half untouched since goes."""

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
        self.waiting_since: float | None = None
        self.rebuilt = False
        self._store: Store | None = None
        self._taken = Recent[int](cache_users)
        self._users = Recent[User](cache_users)
        self._segment_length: int | None = None
        self._named: set[int] = set()

    @property
    def store(self) -> Store:
        if self._store is None:
            raise RuntimeError(f"partition {self.number} is {self.phase.name.lower()}: its store is not open")
        return self._store

    def open(self, folder: Path, memory: StoreMemory) -> None:
        self._store = Store(folder, memory)

    def reopen_empty(self, memory: StoreMemory) -> None:
        """Throw the store away, because it is not a copy of this changelog, and begin with nothing."""
        folder = self.store.folder
        self.forget()
        self.store.close()
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

    def remember(self, taken: Mapping[bytes, int], users: Mapping[bytes, User]) -> None:
        """Keep in memory what was written: how far users are, and the whole states that may be asked for again before others are."""
        self._taken.note(taken)
        self._users.note(users)

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

    def named(self, items: Iterable[int]) -> None:
        """The text of these is in the store now."""
        if len(self._named) > _KNOWN_NAMES:
            self._named.clear()
        self._named.update(items)

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
        resume: Callable[[int], bool],
        pause: Callable[[int], None],
        clock: Callable[[], float],
        at: At = passing,
    ) -> None:
        """`begin_restore` and `resume` are called for a partition in this order; `resume` again until it says that records will come."""
        self._folder = folder
        self._memory = memory
        self._cache_users = cache_users
        self._begin_restore = begin_restore
        self._resume = resume
        self._pause = pause
        self._clock = clock
        self._at = at
        self._owned: dict[int, Partition] = {}

    def __getitem__(self, number: int) -> Partition:
        return self._owned[number]

    def owned(self) -> list[int]:
        return sorted(self._owned)

    def all(self) -> list[Partition]:
        return list(self._owned.values())

    def running(self) -> list[int]:
        return [number for number, partition in self._owned.items() if partition.phase is Phase.RUNNING]

    def assigned(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._owned[number] = Partition(number, self._cache_users)
        logger.info("partitions assigned=%s owned=%s", list(numbers), self.owned())
        self._at(Point.ASSIGNED)

    def gone(self, numbers: Sequence[int], why: str) -> None:
        """Let go of partitions, revoked or lost: no step is under way here, so their stores hold what was published."""
        for number in numbers:
            partition = self._owned.pop(number, None)
            if partition is not None:
                partition.close()
        logger.info("partitions %s=%s owned=%s", why, list(numbers), self.owned())
        self._at(Point.GONE)

    def restore(self) -> bool:
        """Bring partitions that were assigned a little closer to running; True while some are not there yet."""
        waiting = [partition for partition in self._owned.values() if partition.phase is not Phase.RUNNING]
        for partition in waiting[:_AT_ONCE]:
            try:
                if partition.phase is Phase.ASSIGNED and not self._opened(partition):
                    continue
                if partition.restore is not None and partition.restore.advance():
                    partition.restore.close()
                    partition.restore = None
                    self._at(Point.RESTORED)
            except StateCorrupted as error:
                self.rebuild(error)
                continue
            if partition.restore is None and self._resume(partition.number):
                partition.phase = Phase.RUNNING
        return any(partition.phase is not Phase.RUNNING for partition in waiting)

    def rebuild(self, error: StateCorrupted) -> None:
        """Wipe the store that cannot be read and begin its partition's life again: the changelog has everything.

        Raises:
            StateCorrupted: it is not one of ours, or what came from the changelog cannot be read either.
        """
        for partition in self._owned.values():
            if error.folder == self._folder_of(partition) and not partition.rebuilt:
                logger.warning("store rebuilt partition=%d reason=%s", partition.number, error)
                if partition.phase is Phase.RUNNING:
                    self._pause(partition.number)
                partition.rebuilt = True
                partition.phase = Phase.ASSIGNED
                with suppress(StateError):  # what a damaged store says when it is closed
                    partition.close()
                wipe(self._folder_of(partition))
                return
        raise error

    def _folder_of(self, partition: Partition) -> Path:
        return self._folder / str(partition.number)

    def _opened(self, partition: Partition) -> bool:
        try:
            partition.open(self._folder_of(partition), self._memory)
        except StoreLocked:
            if partition.waiting_since is None:
                partition.waiting_since = self._clock()
                logger.warning("store locked partition=%d: waiting for its last owner on this machine", partition.number)
            if self._clock() - partition.waiting_since > LOCK_WAIT_S:
                raise
            return False
        self._at(Point.OPENED)
        partition.restore = self._begin_restore(partition, self._memory)
        partition.phase = Phase.RESTORING
        return True

    def flush(self) -> None:
        for number in self.running():
            self._owned[number].store.flush()

    def close(self) -> None:
        self.gone(self.owned(), "closed")
