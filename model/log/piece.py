"""A piece of a log: some rows, and where they are in their file."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl


@dataclass(frozen=True, slots=True)
class Piece:
    frame: pl.DataFrame
    """The wanted columns under our names, with the values of the file. null: there is none."""
    place: Callable[[int], str]
    """Where a row of the frame is: `log.csv, line 17`."""
    mixed: dict[str, list[Any]]
    """Columns with values of several types, which `frame` cannot hold."""
