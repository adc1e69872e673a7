"""Sequences of different lengths as the one array that a model takes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def padded(rows: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """(B, longest) int64, with 0 on the right of the shorter ones.

    There is at least one column, because a model takes no empty array.
    """
    together = np.zeros((len(rows), max(1, max(map(len, rows), default=1))), dtype=np.int64)
    for line, row in zip(together, rows, strict=True):
        line[: len(row)] = row
    return together
