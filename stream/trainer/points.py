"""The named moments at which the tests stop a trainer.

The trainer calls `at(point)` at each of them. In production that does nothing (`passing`). A test passes a function
that raises an error or kills the process there.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias


class Point(StrEnum):
    """The points, in the order in which a batch of interactions and a training reach them."""

    READ = "read"
    """Records are in memory, and in no file."""
    REMOVED_PARTLY = "removed-partly"
    """Rows of users who were forgotten are gone from one file; other files may still have some."""
    BESIDE = "beside"
    """The new content of a file is whole, under a hidden name."""
    WRITTEN = "written"
    """The batch is in the log; the group's offset is not committed."""
    COMMITTED = "committed"
    LINKED = "linked"
    """What a training will read is set aside; the training is not noted."""
    NOTED = "noted"
    """The training is noted, and has not begun."""
    ADDED = "added"
    """The new version is in the registry; the trainer does not know."""
    TRAINED = "trained"
    """The trainer knows the new version, and has not promoted it."""
    PROMOTED = "promoted"
    """The new version is promoted; the training is still noted."""
    FINISHED = "finished"


At: TypeAlias = Callable[[Point], None]


def passing(point: Point) -> None:
    """Do nothing."""
