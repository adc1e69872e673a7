"""When each interaction of a log is sent: at once, at a rate, or with the spacing that the log has."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_TOGETHER: Final = 5000
"""Most interactions between two looks at the clock."""
_TICK_S: Final = 0.01
_LONGEST_SLEEP_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """One of the two, or neither: as fast as Kafka accepts."""

    rate: float | None = None
    """Interactions a second."""
    speed: float | None = None
    """How many times as fast as it happened."""
    tick_s: float = _TICK_S
    """Interactions that are due within this time are sent together."""

    def due_s(self, times: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Seconds from the beginning until each interaction is due; None: all at once.

        Args:
            times: epoch ms, in order.
        """
        if self.rate is not None:
            return np.arange(len(times)) / self.rate
        if self.speed is not None:
            return (times - times[:1]) / (1000 * self.speed)
        return None

    def takes_s(self, times: NDArray[np.int64]) -> float | None:
        """Seconds until the last of them is due; None without a pace."""
        due = self.due_s(times)
        return None if due is None else float(due[-1]) if len(due) else 0.0

    def chunks(
        self, times: NDArray[np.int64], clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> Iterator[tuple[int, int]]:
        """The ranges of interactions to send, each when it is due."""
        due, began, at = self.due_s(times), clock(), 0
        while at < len(times):
            end = len(times)
            if due is not None:
                ahead = due[at] - (clock() - began)
                if ahead > 0:
                    sleep(min(max(ahead, self.tick_s), _LONGEST_SLEEP_S))
                    continue
                end = int(np.searchsorted(due, clock() - began, "right"))
            yield at, (at := min(max(end, at + 1), at + _TOGETHER))


def in_words(seconds: float) -> str:
    """A time span for people: its two largest units."""
    units = (("day", 86_400), ("hour", 3600), ("minute", 60))
    for index, (name, size) in enumerate(units):
        if seconds >= size:
            whole, rest = divmod(seconds, size)
            smaller, of = (*units[index + 1 :], ("second", 1))[0]
            parts = [(int(whole), name), (int(rest // of), smaller)]
            return " ".join(f"{count} {unit}{'' if count == 1 else 's'}" for count, unit in parts if count)
    return f"{seconds:.3g} seconds"
