"""Recompute one user from the input alone, one interaction after the other."""

from collections import deque
from collections.abc import Iterator, Mapping
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

    def floats(self, stored: "Memorised") -> list[float]:
        """A memory as it is stored."""
        reader = next(each for each in self.versions.values() if each.memory_format == stored.memory_format)
        return reader.floats(stored.memory)


class Memorised(NamedTuple):
    """One preference memory of a user: of `folds` segments, but for the `missing` oldest ones."""

    memory_format: str
    memory: Memory | None
    folds: int
    missing: int


Memories: TypeAlias = tuple[Memorised, ...]
"""The memory of the newest fold, then those of formats that folded before, the newest first."""


class Segment(NamedTuple):
    """A folded segment that is kept."""

    items: list[str]
    times: list[int]


class Made(NamedTuple):
    """A list as it must be: its other fields, and its items with their scores."""

    fields: dict[str, Any]
    ranking: Ranking


@dataclass(slots=True)
class Replay:
    """A user's expected state; `exclude` is REC2PM_EXCLUDE=kept.

    What a version reads of another format's memories depends on the folds alone, never on when it is read: by a list,
    by a fold, or by the background before either. So the versions of one memory format that serve here fold alike, if
    memories of other formats are stored.
    """

    rules: Rules
    taken: int = 0
    folds: int = 0
    folded_at: int = 0
    items: list[str] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    memories: Memories = ()
    kept: deque[Segment] = field(init=False)
    _hidden: object = None
    """Of the fold that the newest interaction completed."""

    def __post_init__(self) -> None:
        self.kept = deque(maxlen=self.rules.keep_segments)

    def take(self, interaction: Said, version: Version) -> bool:
        """Remember one interaction; True if a list is due after it."""
        self.taken += 1
        self.items.append(interaction.item)
        self.times.append(interaction.time)
        self._hidden = None
        if full := len(self.items) == self.rules.segment_length:
            self._fold(version)
        return full if self.rules.lists == "fold" else self.taken % self.rules.lists == 0

    def _fold(self, version: Version) -> None:
        read, *earlier = self.read_by(version) or (Memorised(version.memory_format, None, 0, 0),)
        memory, self._hidden = version.fold(read.memory, version.rows(self.items), self.times)
        self.memories = (read._replace(memory=memory, folds=read.folds + 1), *earlier)
        self.folds += 1
        self.folded_at = self.times[-1]
        self.kept.append(Segment(self.items, self.times))
        self.items, self.times = [], []

    def read_by(self, version: Version) -> Memories:
        """As this version finds the memories: in its own format, with the folded segments as far as they are kept."""
        mine, all_of_them = version.memory_format, self.memories
        if not all_of_them or all_of_them[0].memory_format == mine:
            return all_of_them
        own = next((each for each in all_of_them if each.memory_format == mine), Memorised(mine, None, 0, 0))
        oldest_kept = self.folds - len(self.kept)
        memory = own.memory
        for number, segment in enumerate(self.kept, oldest_kept):
            if number >= own.folds:
                memory = version.fold(memory, version.rows(segment.items), segment.times).memory
        missing = own.missing + max(0, oldest_kept - own.folds)
        others = [each for each in all_of_them if each.memory_format != mine]
        return (Memorised(mine, memory, self.folds, missing), *others[: self.rules.keep_formats])

    def recommendation(self, partition: int, offset: int, time: int, version: Version) -> Made:
        """The expected list after the last interaction."""
        read = self.read_by(version)
        memory = read[0].memory if read else None
        rows, k = version.rows(self.items), self.rules.top_k
        known = any(row != version.unknown for row in rows)
        source = "memory" if memory is not None else "working" if known else "popular"
        kept = (row for segment in self.kept for row in version.rows(segment.items))
        exclude = sorted({*rows, *kept} - {version.unknown})
        ranking = (
            version.popular(k, exclude, time)
            if source == "popular"
            else version.ranked(memory, self._hidden, rows, self.times, k, exclude)
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
        return Made(fields, ranking)

    def rows(self, user: str, partition: int, last: Version) -> Iterator[dict[str, Any]]:
        """The possible rows of `rec2pm state export`: the memory in use is that of the newest fold, or already the one
        that the version reads that served last.
        """
        for memories in dict.fromkeys((self.memories, self.read_by(last))):
            yield {
                "user_id": user,
                "taken": self.taken,
                "folds": self.folds,
                "working_items": self.items,
                "working_times": self.times,
                "memory": self.rules.floats(memories[0]) if memories else [],
                "memory_format": memories[0].memory_format if memories else "",
                "as_of": self.times[-1] if self.times else self.folded_at,
                "partition": partition,
                "missing_segments": memories[0].missing if memories else 0,
            }
