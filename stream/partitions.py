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
from typing import Final, Protocol, cast

from state.errors import StateCorrupted, StateError, StoreLocked
from state.store import Store, StoreMemory, wipe
from state.user import User

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


class Partition:
    """One partition's store, and a cache of its users."""

    def __init__(self, number: int, cache_users: int) -> None:
        self.number: Final = number
        self.phase = Phase.ASSIGNED
        self._young: dict[bytes, User] = {}
        self._old: dict[bytes, User] = {}
        self.restore: Restore | None = None
        self.waiting_since: float | None = None
        self.rebuilt = False
        self._cache_users = cache_users
        self._store: Store | None = None
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
        self.store.close()
        wipe(folder)
        self._store = Store(folder, memory)

    def users(self, ids: Sequence[bytes]) -> tuple[list[User], list[User]]:
        """The state of each user id, from memory or else from the store; and those that were read from the store."""
        young, old = self._young.get, self._old.get
        found = [young(user) or old(user) for user in ids]
        if None not in found:
            return cast("list[User]", found), []
        missing = sorted({user for user, state in zip(ids, found, strict=True) if state is None})
        read = self.store.read(missing)
        stored = dict(zip(missing, read, strict=True))
        return [stored[user] if state is None else state for user, state in zip(ids, found, strict=True)], read

    def remember(self, users: Mapping[bytes, User]) -> None:
        """Keep states as written. When half of what may be kept is new, the half untouched since the last time goes."""
        self._young.update(users)
        if len(self._young) * 2 > self._cache_users:
            self._young, self._old = {}, self._young

    def forget(self) -> None:
        """Keep no states in memory."""
        self._young, self._old = {}, {}

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
        self._named.clear()
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
    ) -> None:
        """`begin_restore` and `resume` are called for a partition in this order; `resume` again until it says that records will come."""
        self._folder = folder
        self._memory = memory
        self._cache_users = cache_users
        self._begin_restore = begin_restore
        self._resume = resume
        self._pause = pause
        self._clock = clock
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

    def gone(self, numbers: Sequence[int], why: str) -> None:
        """Let go of partitions, revoked or lost: no step is under way here, so their stores hold what was published."""
        for number in numbers:
            partition = self._owned.pop(number, None)
            if partition is not None:
                partition.close()
        logger.info("partitions %s=%s owned=%s", why, list(numbers), self.owned())

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
        partition.restore = self._begin_restore(partition, self._memory)
        partition.phase = Phase.RESTORING
        return True

    def flush(self) -> None:
        for number in self.running():
            self._owned[number].store.flush()

    def close(self) -> None:
        self.gone(self.owned(), "closed")
