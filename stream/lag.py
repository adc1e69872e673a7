"""How far a worker is behind the ends of its partitions, in records and in seconds.

The client says every few seconds where each partition ends, for a reader of committed records. From this history
follows since when there have been records beyond a position. So lag in seconds needs no record's timestamp: producers
choose those, and a log that is sent again has old ones.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

_MOST: Final = 512
"""Most ends that are remembered of a partition. Of a longer history, those closest together are left out: that costs
less than a hundredth of its length in accuracy.
"""


class Behind(NamedTuple):
    """How far one partition is behind."""

    records: int
    """Offsets from the position to the end. Markers of transactions have offsets too."""
    seconds: float
    """For how long the worker has known that there is a record which it has not taken; 0 if it has taken all."""


class Lag:
    """The ends of a worker's partitions, as they were seen. The loop notes them, and other threads may ask."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[tuple[float, int], ...]] = {}
        """Partition → when an end was seen first, and the end; the oldest first. The first is beyond the position."""
        self._ends: Mapping[int, int] = {}

    def note(self, now: float, positions: Mapping[int, int], ends: Mapping[int, int]) -> None:
        """Note where partitions end.

        Args:
            now: monotonic seconds.
            positions: partition → the offset to read next, of the partitions that the worker has.
            ends: partition → the end that is known, where one is.
        """
        seen: dict[int, tuple[tuple[float, int], ...]] = {}
        for number, position in positions.items():
            end = ends.get(number)
            beyond = [each for each in self._seen.get(number, ()) if each[1] > position]
            if end is not None and end > position and (not beyond or end > beyond[-1][1]):
                beyond.append((now, end))
            if len(beyond) > _MOST:
                beyond = _thinned(beyond)
            seen[number] = tuple(beyond)
        self._seen, self._ends = seen, ends

    def of(self, number: int, position: int, now: float) -> Behind | None:
        """How far a partition is behind at a position; None if its end is not known.

        Args:
            position: the offset to read next.
            now: monotonic seconds.
        """
        end = self._ends.get(number)
        if end is None:
            return None
        since = next((at for at, seen in self._seen.get(number, ()) if seen > position), None)
        return Behind(max(0, end - position), 0.0 if since is None or end <= position else max(0.0, now - since))


def _thinned(seen: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """The first and the last end, and of those between them about half as many as may be remembered, evenly."""
    gap = 2 * (seen[-1][0] - seen[0][0]) / _MOST
    kept = seen[:1]
    for each in seen[1:-1]:
        if each[0] - kept[-1][0] >= gap:
            kept.append(each)
    return [*kept, seen[-1]]
