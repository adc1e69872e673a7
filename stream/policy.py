"""Decisions as pure functions of values: when a user gets a list, how large the next step may be."""

from collections import deque
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

Cadence: TypeAlias = Literal["interaction", "fold"] | int
"""When a user gets a list: once per step that touched them, at each fold, or at every N-th of their interactions."""


def list_after(cadence: Cadence, folds: int, working: int, new: int, segment_length: int) -> Sequence[int]:
    """After which of a user's new interactions a list is made.

    Args:
        cadence: the setting `REC2PM_RECOMMEND`.
        folds: segments folded before these interactions.
        working: items in the working memory before them.
        new: how many they are.
        segment_length: interactions to a segment.

    Returns:
        Indices into the new interactions, ascending.
    """
    if cadence == "interaction":
        return (new - 1,) if new else ()
    if cadence == "fold":
        return range(segment_length - working - 1, new, segment_length) if working + new >= segment_length else ()
    taken = folds * segment_length + working
    return range((-taken - 1) % cadence, new, cadence)


def stride(cadence: Cadence, segment_length: int) -> int:
    """A list can be made only after a whole multiple of so many interactions of a user."""
    if cadence == "interaction":
        return 1
    return segment_length if cadence == "fold" else cadence


class StepSize:
    """How many records the next step may take.

    A step takes all of a backlog that fits its time budget: a transaction costs the same for ten records as for ten
    thousand. What a record costs differs a thousandfold between models, so it is measured, without the transaction: a
    Kafka that is slow to commit is no reason for smaller steps. The wait for records does not depend on the limit, so
    light load stays as quick as it is.
    """

    def __init__(self, *, budget_s: float, largest: int, first: int = 500) -> None:
        self._budget_s = budget_s
        self._largest = largest
        self.limit = min(first, largest)

    def learn(self, records: int, seconds: float) -> None:
        """Learn from a step that took so many records and so long.

        A step that was full, or over the budget, sets the next limit in proportion; growth is at most twofold, because
        fixed costs make a small step look dearer per record than a large one is.
        """
        if records >= self.limit or seconds > self._budget_s:
            share = self._budget_s / seconds if seconds > 0 else 2.0
            self.limit = max(1, min(int(records * min(share, 2.0)), self._largest))

    def halve(self) -> None:
        """Take fewer records at once: so many together were too much."""
        self.limit = max(1, self.limit // 2)


REFUSED_AMONG: Final = 1000
JUDGED_FROM: Final = 100


class RefusedShare:
    """Whether so many of the newest records are refused that it is not single records that are broken, but what sends
    them.

    Judged are the newest thousand records or, where there are fewer yet, those there are, from a hundred on.
    """

    def __init__(self, limit: float) -> None:
        """`limit`: the share, of 1, that may be refused."""
        self.limit = limit
        self._steps: deque[tuple[int, int]] = deque()
        self.records = self.refused = 0

    def exceeded_by(self, records: int, refused: int) -> bool:
        """Whether a step of so many records, so many of them refused, goes beyond the limit."""
        records, refused = self.records + records, self.refused + refused
        return records >= JUDGED_FROM and refused > self.limit * records

    def note(self, records: int, refused: int) -> None:
        """Note a step that is published."""
        self._steps.append((records, refused))
        self.records += records
        self.refused += refused
        while self.records - self._steps[0][0] >= REFUSED_AMONG:
            gone, gone_refused = self._steps.popleft()
            self.records -= gone
            self.refused -= gone_refused
