"""The line that a worker logs every minute: what it did since the last one, and how far behind it is."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from stream.partition import Partition, Phase
from stream.ports import Counts


class ProgressLine:
    """Remembers the counts of the last line."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Args:
        clock: monotonic seconds.
        """
        self._clock: Final = clock
        self._at = clock()
        self._records = self._lists = 0

    def next(self, counts: Counts, partitions: Iterable[Partition], ends: Mapping[int, int]) -> str:
        """The line of now.

        Args:
            counts: of the worker since it started.
            partitions: those that it owns.
            ends: partition → the end of what can be read of it, where the client knows it.
        """
        now = self._clock()
        seconds = max(now - self._at, 0.001)
        records, lists = counts.records - self._records, counts.lists - self._lists
        self._at, self._records, self._lists = now, counts.records, counts.lists
        owned = list(partitions)
        running = [partition for partition in owned if partition.phase is Phase.RUNNING]
        return (
            f"records_per_s={records / seconds:.1f} lists_per_s={lists / seconds:.1f} "
            f"lag={_lag(running, len(owned), ends)} partitions={len(owned)} running={len(running)}"
        )


def _lag(running: Iterable[Partition], owned: int, ends: Mapping[int, int]) -> str:
    """How many offsets are between the running partitions and their ends; unknown while one of all is not known."""
    behind = [
        max(0, ends[partition.number] - partition.next_offset) for partition in running if partition.number in ends
    ]
    return str(sum(behind)) if len(behind) == owned else "unknown"
