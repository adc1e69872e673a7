"""How long steps take, by phase, in buckets: what a scrape needs for percentiles, without keeping each step."""

from bisect import bisect_left
from collections.abc import Callable
from typing import Final, Literal

Phase = Literal["decode", "compute", "publish", "write"]
PHASES: Final[tuple[Phase, ...]] = ("decode", "compute", "publish", "write")
"""The phases of a step, in their order. The poll before them is no part of it: it may wait for records."""
BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Laps:
    """The phases of one step as they end, in seconds. A phase that comes again is longer by that."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Args:
        clock: monotonic seconds; the first phase begins now.
        """
        self._clock = clock
        self._at = clock()
        self.seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)

    def end(self, phase: Phase) -> None:
        """What took time since the last phase ended was this one."""
        now = self._clock()
        self.seconds[phase] += now - self._at
        self._at = now


class Seconds:
    """Counts durations by their size."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def note(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bound and how many durations were at most so long, as Prometheus wants them."""
        told, noted = [], 0
        for bound, count in zip([*map(str, BOUNDS_S), "+Inf"], self._counts, strict=True):
            noted += count
            told.append((bound, float(noted)))
        return told


class StepTimes:
    """The durations of all steps."""

    def __init__(self) -> None:
        self.phases: Final[dict[Phase, Seconds]] = {phase: Seconds() for phase in PHASES}
        self.whole: Final = Seconds()
        """From the decoding of a poll to the store. Percentiles of phases do not add up to one of the whole."""

    def note(self, laps: Laps) -> float:
        """Note a step that is done. Returns its seconds."""
        for phase, seconds in laps.seconds.items():
            self.phases[phase].note(seconds)
        whole = sum(laps.seconds.values())
        self.whole.note(whole)
        return whole
