"""Recompute one user from the input alone, one interaction after the other."""

from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

from tests.crash.arithmetic import EMPTY, Catalogue, Memory, fold, seed
from tests.crash.said import Said


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of the workers that affect the result.

    `lists` is REC2PM_RECOMMEND: at each fold, or after every N interactions. `fails`: folding the catalogue's last item
    raises (`tests.crash.ledger`).
    """

    catalogue: Catalogue
    segment_length: int
    lists: Literal["fold"] | int
    top_k: int
    keep_segments: int
    model: str
    memory_format: str = "ledger/1"
    fails: bool = False


class Replay:
    """A user's expected state; `exclude` is REC2PM_EXCLUDE=kept."""

    __slots__ = ("folded_at", "folds", "items", "kept", "memory", "rows", "taken", "times")

    def __init__(self, keep_segments: int) -> None:
        self.taken = self.folds = 0
        self.memory: Memory = EMPTY
        self.folded_at = 0
        self.items: list[str] = []
        self.rows: list[int] = []
        self.times: list[int] = []
        self.kept: deque[list[int]] = deque(maxlen=keep_segments)

    def take(self, interaction: Said, row: int, rules: Rules) -> bool:
        """Remember one interaction; True if a list is due after it."""
        self.taken += 1
        self.items.append(interaction.item)
        self.rows.append(row)
        self.times.append(interaction.time)
        if full := len(self.rows) == rules.segment_length:
            self.memory = fold(self.memory, self.rows)
            self.folds += 1
            self.folded_at = interaction.time
            self.kept.append(self.rows)
            self.items, self.rows, self.times = [], [], []
        return full if rules.lists == "fold" else self.taken % rules.lists == 0

    def recommendation(self, partition: int, offset: int, time: int, rules: Rules) -> dict[str, Any]:
        """The expected list after the last interaction."""
        unknown = rules.catalogue.unknown
        source = "memory" if self.folds else "working" if any(row != unknown for row in self.rows) else "popular"
        working = [] if source == "popular" else self.rows
        exclude = {*self.rows, *(row for segment in self.kept for row in segment)}
        items, scores = rules.catalogue.ranked(seed(self.memory, working), rules.top_k, exclude)
        return {
            "items": items,
            "scores": scores,
            "as_of": time,
            "partition": partition,
            "offset": offset,
            "taken": self.taken,
            "folds": self.folds,
            "model": rules.model,
            "source": source,
        }

    def row(self, user: str, partition: int, rules: Rules) -> dict[str, Any]:
        """The expected row of `rec2pm state export`."""
        return {
            "user_id": user,
            "taken": self.taken,
            "folds": self.folds,
            "working_items": self.items,
            "working_times": self.times,
            "memory": [float(each) for each in self.memory] if self.folds else [],
            "memory_format": rules.memory_format if self.folds else "",
            "as_of": self.times[-1] if self.times else self.folded_at,
            "partition": partition,
        }
