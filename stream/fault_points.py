"""The named moments between which a crash, a pause or a rebalance may come: what the fault tests aim at.

The worker calls `at(point)` as it passes each. In production that does nothing (`passing`); `tests/crash` hands in a
function that kills, stops or delays the process there. Nothing may depend on what the function does but return.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias


class Point(StrEnum):
    """In the order in which a step and a partition's life pass them."""

    ASSIGNED = "assigned"
    """In the rebalance, partitions noted and not yet opened."""
    OPENED = "opened"
    """A partition's store is open, nothing restored."""
    RESTORING = "restoring"
    """A batch of the changelog is in the store, and more is to come."""
    RESTORED = "restored"
    """The store holds everything that the changelog does; no record is taken yet."""
    POLLED = "polled"
    """Records are there, and the group's generation that goes with them."""
    COMPUTED = "computed"
    """Everything the step publishes is known, nothing is sent."""
    BEGUN = "begun"
    PRODUCED = "produced"
    """All records are handed to the client; some may be at the broker."""
    OFFSETS_SENT = "offsets-sent"
    """The consumed offsets are part of the transaction, which is open."""
    COMMITTED = "committed"
    """Published; no local store knows it."""
    WRITTEN_PARTLY = "written-partly"
    """In the store of one partition of the step."""
    WRITTEN = "written"
    ABORTED = "aborted"
    """The transaction is undone, and the consumer still stands behind its records."""
    GONE = "gone"
    """In the rebalance, partitions revoked or lost and their stores closed."""


At: TypeAlias = Callable[[Point], None]


def passing(point: Point) -> None:
    """Go on."""
