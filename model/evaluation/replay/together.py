"""Which items come soon after which, counted over all users while a log passes by in time order.

A pair is counted when a user has an item within `REACH` interactions after another one. Memory is bounded: of more than
`PAIRS` different pairs, the rarest are forgotten.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Codes = NDArray[np.int32]
Counts = NDArray[np.float32]

REACH: Final = 3
FOLLOWERS: Final = 100
"""So many followers of an item are candidates, the most frequent ones."""
PAIRS: Final = 4_000_000
_FRESH: Final = 16
"""New pairs are counted in when there is one for so many known ones, so that they are never more than 6 % behind."""


class Together:
    """Pairs of item codes below `n_items`, and how often each was counted."""

    def __init__(self, n_items: int) -> None:
        self._n_items: Final = n_items
        self._keys: Ints = np.empty(0, np.int64)  # first · V + second, ascending
        self._counts: Ints = np.empty(0, np.int64)
        self._new: list[Ints] = []
        self._waiting = 0
        self._start: Ints = np.zeros(n_items, np.int64)
        self._length: Ints = np.zeros(n_items, np.int64)
        self._items: Codes = np.zeros(FOLLOWERS, np.int32)
        self._weights: Counts = np.zeros(FOLLOWERS, np.float32)

    def add(self, first: Codes, second: Codes) -> None:
        """Count pairs (P,). An item does not follow itself."""
        different = first != second
        self._new.append(first[different].astype(np.int64) * self._n_items + second[different])
        self._waiting += len(self._new[-1])

    def refresh(self) -> None:
        """Count in what was added, if it is enough."""
        if self._waiting and self._waiting * _FRESH >= len(self._keys):
            self._merge()

    def followers(self, items: Codes) -> tuple[Codes, Counts]:
        """Items that follow each of R items and how often, both (R, `FOLLOWERS`), the most frequent first; a count of 0
        is no follower.
        """
        at = np.arange(FOLLOWERS)
        index = self._start[items][:, None] + at
        there = at < self._length[items][:, None]
        return self._items[index], np.where(there, self._weights[index], np.float32(0))

    def _merge(self) -> None:
        new, counts = np.unique(np.concatenate(self._new), return_counts=True)
        self._new, self._waiting = [], 0
        at = np.searchsorted(self._keys, new)
        known = np.zeros(len(new), bool)
        known[at < len(self._keys)] = self._keys[at[at < len(self._keys)]] == new[at < len(self._keys)]
        self._counts[at[known]] += counts[known]
        self._keys = np.insert(self._keys, at[~known], new[~known])
        self._counts = np.insert(self._counts, at[~known], counts[~known])
        if len(self._keys) > PAIRS:
            # No two are equal, so every machine forgets the same ones.
            frequency = (self._counts << 32) + np.arange(len(self._keys))
            rare = np.argpartition(frequency, len(self._keys) - PAIRS)[: len(self._keys) - PAIRS]
            self._keys, self._counts = np.delete(self._keys, rare), np.delete(self._counts, rare)
        self._order()

    def _order(self) -> None:
        first, second = np.divmod(self._keys, self._n_items)
        # Of equal counts, the lower code first: the keys are ascending and the sort is stable.
        order = np.argsort((first << 32) - self._counts, kind="stable")
        all_of_one = np.bincount(first, minlength=self._n_items)
        begin = np.cumsum(all_of_one) - all_of_one
        order = order[np.arange(len(first)) - begin[first] < FOLLOWERS]
        self._length = np.minimum(all_of_one, FOLLOWERS)
        self._start = np.cumsum(self._length) - self._length
        # So many more, because `followers` reads that far for every item.
        self._items = np.append(second[order], np.zeros(FOLLOWERS)).astype(np.int32)
        self._weights = np.append(self._counts[order], np.zeros(FOLLOWERS)).astype(np.float32)
