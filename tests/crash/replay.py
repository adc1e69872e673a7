"""Recompute one user from the input alone, one interaction after the other."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from tests.crash.said import Said
from tests.crash.versions import Memory, Ranking, Version


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of the workers that affect the result, and what may serve.

    `lists` is REC2PM_RECOMMEND: at each fold, or after every N interactions. `configured` is REC2PM_MODEL. `bad`: the
    references that no worker may serve, whatever is promoted. `tolerance`: of scores and memories; 0: they are exact.
    `serves_within_ms`: how long after a promotion an older version may still serve. `in_order`: no partition ever goes
    back to an older promotion.
    """

    versions: Mapping[str, Version]
    configured: str
    segment_length: int
    lists: Literal["fold"] | int
    top_k: int
    keep_segments: int
    keep_formats: int = 1
    bad: frozenset[str] = frozenset()
    tolerance: float = 0.0
    serves_within_ms: int = 90_000
    in_order: bool = False

    def floats(self, stored: "Stored") -> list[float]:
        """A memory as it is stored."""
        reader = next(each for each in self.versions.values() if each.memory_format == stored.memory_format)
        return reader.floats(stored.memory)


class Stored(NamedTuple):
    """One preference memory of a user: of `folds` segments, but for the `missing` oldest ones."""

    memory_format: str
    memory: Memory | None
    folds: int
    missing: int


Memories: TypeAlias = tuple[Stored, ...]
"""What may be stored about a user: the memory in use, then those of earlier formats, the newest first."""


class Segment(NamedTuple):
    """A folded segment that is kept."""

    items: list[str]
    times: list[int]


@dataclass(slots=True)
class Candidate:
    """A list that the input allows. `stored`: what may be stored after it, if it is the one that was made."""

    fields: dict[str, Any]
    ranking: Ranking
    stored: list[Memories]


@dataclass(slots=True)
class Replay:
    """A user's expected state; `exclude` is REC2PM_EXCLUDE=kept.

    When another format serves, a memory is read anew at the user's next list or fold, or at some moment before that:
    the background has its own beat. If two formats serve in turn, a user's memory of one of them therefore depends on
    whether the background came by while the other served. So `worlds` has all that may be stored.
    """

    rules: Rules
    taken: int = 0
    folds: int = 0
    folded_at: int = 0
    term: int = 0
    """Of the partition's terms, the one of the newest interaction."""
    items: list[str] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    worlds: list[Memories] = field(default_factory=lambda: [()])
    kept: deque[Segment] = field(init=False)
    _hidden: dict[Memories, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kept = deque(maxlen=self.rules.keep_segments)

    def pass_through(self, versions: Iterable[Version]) -> None:
        """These serve, one after the other: a memory is read by each of them, or is not."""
        if not self.folds:
            return
        for version in versions:
            read = [self._read(world, version) for world in self.worlds]
            self.worlds = list(dict.fromkeys([*self.worlds, *read]))

    def take(self, interaction: Said, version: Version) -> bool:
        """Remember one interaction; True if a list is due after it."""
        self.taken += 1
        self.items.append(interaction.item)
        self.times.append(interaction.time)
        self._hidden = {}
        if full := len(self.items) == self.rules.segment_length:
            self._fold(version)
        return full if self.rules.lists == "fold" else self.taken % self.rules.lists == 0

    def _fold(self, version: Version) -> None:
        rows = version.rows(self.items)
        for world in dict.fromkeys(self._read(world, version) for world in self.worlds):
            before = world[0] if world else Stored(version.memory_format, None, 0, 0)
            memory, hidden = version.fold(before.memory, rows, self.times)
            after = before._replace(memory=memory, folds=before.folds + 1)
            self._hidden[(after, *world[1:])] = hidden
        self.worlds = list(self._hidden)
        self.folds += 1
        self.folded_at = self.times[-1]
        self.kept.append(Segment(self.items, self.times))
        self.items, self.times = [], []

    def _read(self, world: Memories, version: Version) -> Memories:
        """As this version finds the memories: in its own format, with the folded segments as far as they are kept."""
        if not world or world[0].memory_format == version.memory_format:
            return world
        own = next(
            (each for each in world if each.memory_format == version.memory_format),
            Stored(version.memory_format, None, 0, 0),
        )
        oldest_kept = self.folds - len(self.kept)
        memory, missing = own.memory, own.missing + max(0, oldest_kept - own.folds)
        for number, segment in enumerate(self.kept, oldest_kept):
            if number >= own.folds:
                memory = version.fold(memory, version.rows(segment.items), segment.times).memory
        others = [each for each in world if each.memory_format != version.memory_format]
        read = Stored(version.memory_format, memory, self.folds, missing)
        return (read, *others[: self.rules.keep_formats])

    def candidates(self, partition: int, offset: int, time: int, version: Version) -> list[Candidate]:
        """The lists that are possible after the last interaction, of which one is right."""
        found: dict[Memories, Candidate] = {}
        for world in self.worlds:
            read = self._read(world, version)
            if read not in found:
                found[read] = self._candidate(read, partition, offset, time, version)
            found[read].stored += [each for each in (world, read) if each not in found[read].stored]
        return list(found.values())

    def _candidate(self, world: Memories, partition: int, offset: int, time: int, version: Version) -> Candidate:
        memory = world[0].memory if world else None
        rows, k = version.rows(self.items), self.rules.top_k
        known = any(row != version.unknown for row in rows)
        source = "memory" if memory is not None else "working" if known else "popular"
        exclude = {*rows, *(row for segment in self.kept for row in version.rows(segment.items))} - {version.unknown}
        left_out = sorted(exclude)
        ranking = (
            version.popular(k, left_out, time)
            if source == "popular"
            else version.ranked(memory, self._hidden.get(world), rows, self.times, k, left_out)
        )
        fields = {
            "as_of": time,
            "partition": partition,
            "offset": offset,
            "taken": self.taken,
            "folds": self.folds,
            "model": version.reference,
            "source": source,
        }
        return Candidate(fields, ranking, [])

    def made(self, candidates: Sequence[Candidate]) -> None:
        """The list that was made is one of these."""
        self.worlds = list(dict.fromkeys(world for each in candidates for world in each.stored))

    def rows(self, user: str, partition: int) -> Iterator[dict[str, Any]]:
        """The possible rows of `rec2pm state export`, of which one is right."""
        for world in self.worlds:
            yield {
                "user_id": user,
                "taken": self.taken,
                "folds": self.folds,
                "working_items": self.items,
                "working_times": self.times,
                "memory": self.rules.floats(world[0]) if world else [],
                "memory_format": world[0].memory_format if world else "",
                "as_of": self.times[-1] if self.times else self.folded_at,
                "partition": partition,
                "missing_segments": world[0].missing if world else 0,
            }
