"""Partitions that are nobody's, though every member of the group is content.

With cooperative assignment a partition that the leader takes for somebody's else is held back until that member gives it up. A member that
has lost it already never does, and no rebalance follows: the partition stays nobody's until something else brings one (seen once in some
hundred faults, after a broker was killed; `make crash`). A worker that sees it joins again.
"""

from collections.abc import Iterable, Mapping, Set
from typing import Final

LOOK_EVERY_S: Final = 10.0


class Watch:
    """What was seen of the group, look by look."""

    def __init__(self) -> None:
        self._before: Set[int] = frozenset()

    def seen(self, owned: Mapping[str, Iterable[int]] | None, partitions: int) -> Set[int]:
        """Partitions that were nobody's in this look and in the one before; none where the group was about to change.

        Args:
            owned: by member, of a group that is stable; None of one that is not, or that could not be asked.
            partitions: how many the topic has.
        """
        if not owned:
            self._before = frozenset()
            return frozenset()
        now = frozenset(range(partitions)).difference(*owned.values())
        again, self._before = now & self._before, now
        return again
