"""One partition: the phases of its life, its store, and a cache of its users.

    assigned ──▶ ASSIGNED ──▶ RESTORING ──▶ RESUMING ──▶ RUNNING
                    ▲           │   ▲          │            │
                    │           │   └─────(1)──┼────────────┤    (1) a step was aborted: read the rest of the changelog
                    └────(2)────┴──────────────┴────────────┘    (2) the store is damaged: it is wiped

    from each of the four    ──▶ REVOKED    Kafka takes it back: it is ours until we return, so the store is complete
                             ──▶ LOST       the group removed us: another owner may have published since

A RESTORING partition reads the changelog. A RESUMING one has read it, and waits until Kafka answers from which offset
to continue. Only RUNNING partitions receive records: their stores are complete. `MOVES` is this drawing, and
`Partition.become` refuses every other move.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Final, Generic, NamedTuple, Protocol, TypeVar, cast

from msgspec.structs import replace

from state.changelog import Change
from state.codec import INPUT, POSITION, Mark, name_value, number_value
from state.store import Store, StoreMemory, wipe
from state.user import User
from stream.ports import Learned

_KNOWN_NAMES: Final = 200_000


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
    """The progress of a restore."""

    records: int
    """Records read so far."""
    per_s: float
    """Records per second, on average since the first."""
    remaining: int
    """Offsets from what is restored to the end."""

    @property
    def seconds_left(self) -> float | None:
        """At most: offsets that compaction has removed take no time. None while there is no rate."""
        return self.remaining / self.per_s if self.per_s else None


class Restore(Protocol):
    """A restore in progress."""

    def advance(self) -> bool:
        """Read and write one more slice; True when the store is complete."""

    def progress(self) -> Progress | None:
        """None while the end is not known."""

    def close(self) -> None: ...


V = TypeVar("V")


class Recent(Generic[V]):
    """The values noted last, for a bounded number of users.

    Two halves: when the young half is full, it becomes the old half, and the old half is dropped.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[bytes, V] = {}
        self._old: dict[bytes, V] = {}

    def get(self, users: Iterable[bytes]) -> list[V | None]:
        """The value of each user; None if it was dropped or never noted."""
        young, old = self._young.get, self._old.get
        return [old(user) if (noted := young(user)) is None else noted for user in users]

    def note(self, users: Mapping[bytes, V]) -> None:
        self._young.update(users)
        if len(self._young) * 2 > self._size:
            self._young, self._old = {}, self._young

    def clear(self) -> None:
        self._young, self._old = {}, {}


class Recorded(NamedTuple):
    """What a partition stores of the model versions that have served it."""

    mark: tuple[int, Mark] | None
    """The newest mark and its number."""
    one_format: str | None
    """The memory format in which every user has a memory, if that is known."""


class Partition:
    """One partition's store, and what is known of its users without reading the store."""

    def __init__(self, number: int, cache_users: int) -> None:
        self.number: Final = number
        self.phase = Phase.ASSIGNED
        self.restore: Restore | None = None
        self.wiped = False
        self.next_offset = 0
        """The lowest offset that its next record can have."""
        self._store: Store | None = None
        self._taken = Recent[int](cache_users)
        self._users = Recent[User](cache_users)
        self._segment_length: int | None = None
        self._named: set[int] = set()
        self._recorded: Recorded | None = None

    def reads(self) -> bool:
        """Whether its changelog is being read."""
        return self.restore is not None and self.restore.progress() is not None

    def become(self, phase: Phase) -> None:
        """Raises RuntimeError for a move that the drawing does not have: a bug, so nothing can be trusted after it."""
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
        """Wipe the store, because it is not a copy of this changelog, and open an empty one."""
        store, self._store = self.store, None
        folder = store.folder
        self.forget()
        store.close()
        wipe(folder)
        self._store = Store(folder, memory)

    def segment_length(self) -> int | None:
        """The segment length of all users here; None while nothing is stored."""
        if self._segment_length is None:
            self._segment_length = self.store.segment_length()
        return self._segment_length

    def recorded(self) -> Recorded:
        """What is stored of the model versions that have served the partition."""
        if self._recorded is None:
            self._recorded = Recorded(self.store.last_mark(), self.store.one_format())
        return self._recorded

    def taken(self, users: Sequence[bytes]) -> list[int]:
        """How many interactions of each user id are remembered. Sorted ids are read fastest."""
        found = self._taken.get(users)
        if None not in found:
            return cast("list[int]", found)
        read = iter(self.store.taken([user for user, taken in zip(users, found, strict=True) if taken is None]))
        return [next(read) if taken is None else taken for taken in found]

    def users(self, asked: Mapping[bytes, int]) -> dict[bytes, User]:
        """The whole state of each user; `asked` has each user's `taken`."""
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
        if learned.prepared:
            cached = zip(learned.prepared, self._users.get(learned.prepared), strict=True)
            known = {user: state for user, state in cached if state is not None}
            self._users.note({user: replace(state, prepared=learned.prepared[user]) for user, state in known.items()})
        if learned.names:
            self._name(learned.names)
        if learned.served:
            self._recorded = None

    def forget(self) -> None:
        """Keep nothing in memory."""
        self._taken.clear()
        self._users.clear()
        self._segment_length = None
        self._recorded = None
        self._named.clear()

    def reaching(self, next_offset: int, input_id: str) -> list[Change]:
        """The records that say how far the state goes, up to this offset of the topic with this id.

        They are stored with the state, so the two always agree. Kafka can lose the offsets that a group has committed:
        after a broker crash it did.
        """
        changes: list[Change] = [(POSITION, number_value(next_offset))]
        if input_id and self.store.input_id() != input_id:
            changes.append((INPUT, name_value(input_id)))
        return changes

    def unnamed(self, items: Iterable[int]) -> list[int]:
        """Hashed item keys whose text is not in the store yet."""
        asked = [item for item in items if item not in self._named]
        return self.store.unnamed(asked)

    def _name(self, items: Iterable[int]) -> None:
        if len(self._named) > _KNOWN_NAMES:
            self._named.clear()
        self._named.update(items)

    def mark_complete(self, known_ms: int) -> None:
        """Store that the store was complete at this time, epoch ms. Only a running partition does so."""
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


class Owned(Protocol):
    """The partitions of a worker, by number."""

    def __getitem__(self, number: int) -> Partition: ...
