"""The named moments at which the fault tests crash, pause or rebalance a worker.

The worker calls `at(point)` at each of them. In production that does nothing (`passing`). `tests/crash` passes a
function that kills, stops or delays the process there. The worker must not depend on what the function does, only on
its return.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias


class Point(StrEnum):
    """The points, in the order in which a step and a partition's life reach them."""

    ASSIGNED = "assigned"
    """In the rebalance: partitions are noted and not yet opened."""
    OPENED = "opened"
    """A partition's store is open, nothing restored."""
    RESTORING = "restoring"
    """A batch of the changelog is in the store, and more will follow."""
    RESTORED = "restored"
    """The store is complete; no record of the partition has been read yet."""
    POLLED = "polled"
    """A poll brought records; the group's generation that belongs to them is noted."""
    COMPUTED = "computed"
    """Everything that the step publishes is computed; nothing is sent."""
    BEGUN = "begun"
    PRODUCED = "produced"
    """The client has all records; some may be at the broker."""
    OFFSETS_SENT = "offsets-sent"
    """The consumed offsets are part of the transaction, which is open."""
    COMMITTED = "committed"
    """Published; no store has the step yet."""
    WRITTEN_PARTLY = "written-partly"
    """One partition's store has the step; the other stores may lack it."""
    WRITTEN = "written"
    REFOLDED = "refolded"
    """Memories that the background rebuilt are published; no store has them yet."""
    ABORTED = "aborted"
    """The transaction is aborted; the consumer's position is still after its records."""
    GONE = "gone"
    """In the rebalance: partitions are revoked or lost, and their stores are closed."""
    MODEL_FETCHED = "model-fetched"
    """A promoted version is in the local cache. This point and the next two are in the thread that follows
    promotions.
    """
    MODEL_TRIED = "model-tried"
    """A child process has loaded the version and repeated its golden lists."""
    MODEL_LOADED = "model-loaded"
    """The version is loaded and warm; the former one serves."""
    MODEL_SWAPPED = "model-swapped"
    """The next step will be computed by the new version."""


At: TypeAlias = Callable[[Point], None]


def passing(point: Point) -> None:
    """Do nothing."""
