"""What each user did last, while a log passes by in time order: a ring of item codes for each user."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Exclude = Literal["none", "working", "kept"]
Ints = NDArray[np.int64]
Codes = NDArray[np.int32]

OWN: Final = 500
"""Where nothing is excluded: a user's own last items are looked for among so many of their newest interactions."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which of a user's newest interactions a list leaves out: those that a worker's list leaves out after so many."""

    exclude: Exclude
    segment_length: int
    keep_segments: int

    def excluded(self, taken: Ints) -> Ints:
        """How many of the newest interactions are left out, for users who have had `taken` ones."""
        L = self.segment_length
        match self.exclude:
            case "none":
                return np.zeros_like(taken)
            case "working":
                working: Ints = taken % L
                return working
            case "kept":
                kept: Ints = taken % L + L * np.minimum(taken // L, self.keep_segments)
                return kept

    def window(self, taken: Ints) -> Ints:
        """How many of the newest interactions the baselines look at."""
        return np.minimum(taken, OWN) if self.exclude == "none" else self.excluded(taken)

    @property
    def widest(self) -> int:
        return {"none": OWN, "working": self.segment_length, "kept": self.segment_length * (self.keep_segments + 1)}[
            self.exclude
        ]


@dataclass(frozen=True, slots=True)
class Windows:
    """The newest interactions before each of R rows, one after another, oldest first."""

    rows: Ints  # (n,) the row, ascending
    items: Codes  # (n,)


class Histories:
    """The newest interactions of all users. Memory is bounded by the number of users, whatever the length of the log.

    `counts` (U,): how many interactions each user has in the log. `widest`: how many of the newest ones are asked for.
    `at_once`: how many interactions are added in one call at most.
    """

    def __init__(self, counts: Ints, widest: int, at_once: int) -> None:
        # A ring has room for those that are asked for before the first of a call, and for all that the call adds.
        self._room: Final = np.minimum(counts, widest + at_once)
        self._start: Final = np.cumsum(self._room) - self._room
        self._items: Final = np.zeros(int(self._room.sum()), np.int32)
        self._taken: Final = np.zeros(len(counts), np.int64)

    def add(self, users: Ints, items: Codes) -> Ints:
        """Add interactions in their order. Returns how many interactions their users had before each, (R,)."""
        taken = self._taken[users] + earlier_equal(users)
        self._items[self._start[users] + taken % self._room[users]] = items
        np.add.at(self._taken, users, 1)
        return taken

    def newest(self, users: Ints, taken: Ints, back: int) -> tuple[Codes, NDArray[np.bool_]]:
        """The item `back` interactions before the next one, where there is one; 1 is the newest. Both (R,)."""
        there = taken >= back
        return self._items[self._start[users] + np.where(there, taken - back, 0) % self._room[users]], there

    def windows(self, users: Ints, taken: Ints, length: Ints) -> Windows:
        """The newest `length` interactions of users after `taken` ones, all (R,)."""
        rows = np.repeat(np.arange(len(users)), length)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(length) - length, length)
        place = np.repeat(taken - length, length) + within
        owner = users[rows]
        return Windows(rows, self._items[self._start[owner] + place % self._room[owner]])


def earlier_equal(values: Ints) -> Ints:
    """For each value, how many equal ones come before it, (R,)."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    new = np.append(True, ordered[1:] != ordered[:-1])
    at = np.arange(len(values))
    found = np.empty(len(values), np.int64)
    found[order] = at - np.maximum.accumulate(np.where(new, at, 0))
    return found
