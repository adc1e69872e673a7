"""What the versions of the ledger (`tests.crash.ledger`) compute, in plain Python and numpy: no torch, no batches, no
padding.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

FIRST: Final = 8191
SECOND: Final = 8179
ORDER: Final = 99_991
PLACES: Final = 8191
SPREAD: Final = 37
"""Primes, and so small that no product leaves the whole numbers that float32 has. TorchScript takes no module
constants: the ledger spells them out again."""

Memory: TypeAlias = tuple[int, int, int]
"""Two sums that depend on every folded row and their order, and how many they were."""
EMPTY: Final[Memory] = (0, 0, 0)


def fold(memory: Memory, rows: Iterable[int], dialect: int = 1) -> Memory:
    """The memory after these item rows, oldest first. Each `dialect` writes other memories: it is the memory format."""
    first, second, folded = memory
    for row in rows:
        first = 1 + (first * 31 + row + 57 * (dialect - 1)) % FIRST
        second = (second * 17 + first) % SECOND
        folded += 1
    return first, second, folded


def seed(memory: Memory, working: Iterable[int], salt: int = 0) -> int:
    """What a list depends on: the memory, the rows of working memory in their order, and the version, by its `salt`."""
    first, second, folded = memory
    found = (first * 7 + second * 3 + folded + salt) % ORDER
    for row in working:
        found = (found * 13 + row) % ORDER
    return found


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The items, and how they are ranked."""

    item_ids: Sequence[int | str]

    @property
    def unknown(self) -> int:
        """The row that stands for every item that is not in here."""
        return len(self.item_ids) + 1

    def rows(self) -> dict[str, int]:
        """Item as text → row. `7` and `"7"` are the same item."""
        return {str(item): row for row, item in enumerate(self.item_ids, start=1)}

    def ranked(self, seed: int, k: int, exclude: Iterable[int]) -> tuple[list[int | str], list[float]]:
        """The k best items and their scores, without the rows of `exclude`; all of the catalogue when that leaves
        nothing.
        """
        scores: NDArray[np.int64] = -((np.arange(1, len(self.item_ids) + 1) * SPREAD + seed) % PLACES)
        left = np.ones(len(scores), bool)
        left[[row - 1 for row in exclude if row != self.unknown]] = False
        rows = np.flatnonzero(left if left.any() else ~left)
        best = rows[np.argsort(-scores[rows])[:k]]  # no two are equal
        return [self.item_ids[row] for row in best.tolist()], scores[best].astype(float).tolist()
