"""Groups of users, for which an evaluation has numbers of their own. Empty groups are left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

HISTORY_LENGTHS = (0, 1, 10, 50, 100, 200, 500)
FOLDS = (0, 1, 2, 3, 5, 9, 17, 33)

FEW = 30
"""A group with fewer users says little. Tables mark it, pictures leave it out."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some users, by index. `least` orders the groups."""

    label: str
    least: float
    users: NDArray[np.intp]


def by_history(length: Rows) -> list[Part]:
    """By how many interactions came before the target."""
    return _between(length, HISTORY_LENGTHS)


def by_folds(folds: Rows) -> list[Part]:
    """By how many segments were folded before the target. Each group is about twice as wide as the one before."""
    return _between(folds, FOLDS)


def by_position(length: Rows, segment_length: int) -> list[Part]:
    """Users with a fold, by how full working memory is: empty, right after a fold; then by quarters of a segment."""
    folded, working = length >= segment_length, length % segment_length
    quarter = np.where(working == 0, 0, (4 * working - 1) // segment_length + 1)
    parts = [
        Part(label, at / 4, np.flatnonzero(folded & (quarter == at)))
        for at, label in enumerate(("0", "to ¼", "to ½", "to ¾", "to 1"))
    ]
    return [part for part in parts if len(part.users)]


def labels(edges: Sequence[int]) -> list[str]:
    """The names of the classes that begin at `edges`; the last one has no end."""
    between = [str(low) if high == low + 1 else f"{low:,}–{high - 1:,}" for low, high in pairwise(edges)]
    return [*between, f"{edges[-1]:,}+"]


def _between(numbers: Rows, edges: Sequence[int]) -> list[Part]:
    parts = []
    for low, high, label in zip(edges, [*edges[1:], None], labels(edges), strict=True):
        users = np.flatnonzero((numbers >= low) & (numbers < (np.inf if high is None else high)))
        if len(users):
            parts.append(Part(label, low, users))
    return parts
