"""Which items are popular, of all time and of the last days, counted while a log passes by in time order."""

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Codes = NDArray[np.int32]

HOUR_MS: Final = 3_600_000
DAYS: Final = 7


class Order:
    """The most popular items at one moment. Of equal counts, the lower code comes first."""

    def __init__(self, counts: Ints, most: int) -> None:
        """Args:
        counts: (V,) of all items.
        most: how many items are ordered; an item without an interaction never is.
        """
        V = len(counts)
        # One number orders by count, then by code.
        key = counts * V + np.arange(V - 1, -1, -1)
        best = np.argpartition(key, V - most)[V - most :] if most < V else np.arange(V)
        best = best[counts[best] > 0]
        self.items: Final = best[np.argsort(-key[best])].astype(np.int32)
        """The items, best first."""
        self.place: Final = np.full(V, V, np.int32)
        """The place of each item, 0 the best; V for an item that is not ordered. (V,)"""
        self.place[self.items] = np.arange(len(self.items))


class RecentCounts:
    """How often each item was had in the last `DAYS` days, to the hour."""

    def __init__(self, n_items: int) -> None:
        self.counts: Final = np.zeros(n_items, np.int64)
        self._hours: Final[deque[tuple[int, Codes, Ints]]] = deque()

    def move_to(self, now_ms: int) -> None:
        """Forget the interactions of hours that began more than `DAYS` days ago."""
        first = now_ms // HOUR_MS - 24 * DAYS
        while self._hours and self._hours[0][0] < first:
            _, items, counts = self._hours.popleft()
            self.counts[items] -= counts

    def add(self, items: Codes, times: Ints) -> None:
        """Count interactions; `times` are epoch ms and never fall."""
        hours = times // HOUR_MS
        edges = np.flatnonzero(np.append(True, hours[1:] != hours[:-1])).tolist()
        for begin, end in zip(edges, [*edges[1:], len(items)], strict=True):
            found, counts = np.unique(items[begin:end], return_counts=True)
            self.counts[found] += counts
            self._hours.append((int(hours[begin]), found, counts))
