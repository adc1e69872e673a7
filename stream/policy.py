"""Decisions as pure functions of values: when a user gets a list, how large the next step may be."""

from collections import deque
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

Cadence: TypeAlias = Literal["interaction", "fold"] | int
"""When a user gets a list: once per step with an interaction of theirs, at each fold, or at every N-th interaction."""


def list_after(cadence: Cadence, folds: int, working: int, new: int, segment_length: int) -> Sequence[int]:
    """After which of a user's new interactions a list is made.

    Args:
        cadence: the setting `REC2PM_RECOMMEND`.
        folds: segments folded before these interactions.
        working: items in the working memory before them.
        new: number of new interactions.
        segment_length: interactions in a segment.

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
    """A list can come only after a multiple of this number of interactions of a user."""
    if cadence == "interaction":
        return 1
    return segment_length if cadence == "fold" else cadence


class StepSize:
    """How many records the next step may have.

    A step has as many records of a backlog as its time budget allows: a transaction costs the same for ten records as
    for ten thousand. The cost of a record differs a thousandfold between models, so the worker measures it. The
    measurement leaves out the transaction: a Kafka that commits slowly is no reason for smaller steps. The wait for
    records does not depend on the limit, so latency at light load stays low.
    """

    def __init__(self, *, budget_s: float, largest: int, first: int = 500) -> None:
        self._budget_s = budget_s
        self._largest = largest
        self.limit = min(first, largest)

    def learn(self, records: int, seconds: float) -> None:
        """Learn from the number of records in a step and its seconds.

        A step that was full, or over the budget, sets the next limit in proportion. The limit grows at most twofold,
        because fixed costs make a small step look more expensive per record than a large one.
        """
        if records >= self.limit or seconds > self._budget_s:
            share = self._budget_s / seconds if seconds > 0 else 2.0
            self.limit = max(1, min(int(records * min(share, 2.0)), self._largest))

    def halve(self) -> None:
        """Halve the limit: this number of records was too much for one step."""
        self.limit = max(1, self.limit // 2)


NEWEST: Final = 1000
JUDGED_FROM: Final = 100


class _Newest:
    """How many of the newest thousand things have a fault, step by step; of all things while there are fewer."""

    def __init__(self) -> None:
        self._steps: deque[tuple[int, int]] = deque()
        self.all = self.faulty = 0

    def note(self, number: int, faulty: int) -> None:
        self._steps.append((number, faulty))
        self.all += number
        self.faulty += faulty
        while self.all - self._steps[0][0] >= NEWEST:
            gone, gone_faulty = self._steps.popleft()
            self.all -= gone
            self.faulty -= gone_faulty


class RefusedShare:
    """Whether so many of the newest records are refused that a producer must be broken, not single records.

    It looks at the newest thousand records. If there are fewer yet, it looks at all, from a hundred on.
    """

    def __init__(self, limit: float) -> None:
        """`limit`: the share that may be refused, from 0 to 1."""
        self.limit = limit
        self._newest = _Newest()

    @property
    def records(self) -> int:
        return self._newest.all

    @property
    def refused(self) -> int:
        return self._newest.faulty

    def exceeded_by(self, records: int, refused: int) -> bool:
        """Whether the limit is exceeded after a step with these numbers of records and of refused records."""
        records, refused = self.records + records, self.refused + refused
        return records >= JUDGED_FROM and refused > self.limit * records

    def note(self, records: int, refused: int) -> None:
        """Note a published step."""
        self._newest.note(records, refused)


LEAST_KNOWN: Final = 0.5
"""A model that knows less than this share of the newest items was hardly trained on this topic. It is no setting,
because nothing but one warning depends on it: for an alert at another share there is `rec2pm_unknown_items_total`.
"""
KNOWN_AGAIN: Final = 0.75
"""So much must be known again before the next warning. Else a share near the limit would bring one after another."""


class KnownShare:
    """Whether the model knows so few of the newest items that ids must have been written in two ways, or that it is the
    model of another topic.

    It looks at the newest thousand interactions. If there are fewer yet, it looks at all, from a hundred on.
    """

    def __init__(self) -> None:
        self._newest = _Newest()
        self._said = False

    @property
    def items(self) -> int:
        return self._newest.all

    @property
    def known(self) -> int:
        return self._newest.all - self._newest.faulty

    def fell_with(self, items: int, unknown: int) -> bool:
        """Note a step with so many items, and so many that the model does not know; True if that is to be said."""
        self._newest.note(items, unknown)
        if self.items < JUDGED_FROM:
            return False
        if self.known >= KNOWN_AGAIN * self.items:
            self._said = False
        if self._said or self.known >= LEAST_KNOWN * self.items:
            return False
        self._said = True
        return True
