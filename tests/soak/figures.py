"""From what happened to figures: numbers in, numbers out."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from tests.soak.run import Outcome, Used
from tests.soak.worker import STEP, Note

SWAPPED = "model-swapped"
AFTER_S = 1.0
"""A swap lasts from the promotion until so long after the worker swapped: the new version's first steps."""
WARM = 10
"""After so many swaps, memory and threads must be flat."""
MB_PER_100_SWAPS = 10.0
"""What promotions may add to the growth of memory, along the line of least squares: a version that is kept by mistake
is several MB each. The load alone makes memory grow too: users and their stores.
"""
NAMES = {False: "one memory format", True: "two memory formats in turn"}
UNPROMOTED = "no promotions"
_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Swap:
    """One promotion, as one worker saw it. `served_s`: from the promotion to the swap; None: it skipped it."""

    number: int
    worker: str
    other_format: bool
    served_s: float | None
    pause_ms: float
    """The longest time between the ends of two steps around the swap."""
    slowest_ms: float
    """The longest step from the promotion until AFTER_S after the swap."""


@dataclass(frozen=True, slots=True)
class Times:
    """Step times, ms."""

    steps: int
    p50_ms: float
    p99_ms: float
    longest_ms: float


@dataclass(frozen=True, slots=True)
class Phase:
    """The promotions among versions of one memory format, or those between two."""

    name: str
    promotions: int
    swaps: int
    served_p50_s: float
    served_longest_s: float
    during: Times
    outside: Times
    longest_pause_ms: float
    longest_pause_outside_ms: float

    @property
    def ratio(self) -> float:
        """p99 of steps in swaps, as a multiple of that outside."""
        return self.during.p99_ms / self.outside.p99_ms if self.outside.p99_ms else math.nan


@dataclass(frozen=True, slots=True)
class Growth:
    """What one worker's process used in a phase from its WARM-th promotion on, or in a time without promotions: the
    first and last value, and a line through all.
    """

    phase: str
    worker: str
    what: str
    first: float
    last: float
    most: float
    per_100_swaps: float


def swaps_of(outcome: Outcome) -> list[Swap]:
    """Each promotion and worker, in the order of the promotions."""
    ends = [_end_of(outcome, at) for at in range(len(outcome.promoted))]
    found = []
    for worker, notes in outcome.notes.items():
        swapped = [note.ended for note in notes if note.kind == SWAPPED]
        steps = _Steps(notes)
        for number, (began, end) in enumerate(zip(outcome.promoted, ends, strict=True)):
            at = bisect_left(swapped, began)
            mine = swapped[at] if at < len(swapped) and swapped[at] < end else None
            until = min(end, (mine or end) + round(AFTER_S * _S))
            found.append(
                Swap(
                    number,
                    worker,
                    outcome.formats[number],
                    None if mine is None else (mine - began) / _S,
                    0.0 if mine is None else steps.longest_pause(mine - _S // 2, mine + _S),
                    steps.slowest(began, until),
                )
            )
    return sorted(found, key=lambda each: (each.number, each.worker))


def phases(outcome: Outcome, swaps: Sequence[Swap]) -> Iterator[Phase]:
    """Figures of each kind of promotion. What is outside swaps is the same for all: the quiet times, and what is left
    between a swap and the next promotion.
    """
    during: dict[bool, list[float]] = {False: [], True: []}
    outside: list[float] = []
    pauses: list[float] = []
    for worker, notes in outcome.notes.items():
        mine = [each for each in swaps if each.worker == worker]
        starts = outcome.promoted
        ends = [
            start + round(((outcome.options.beat_s if each.served_s is None else each.served_s) + AFTER_S) * _S)
            for start, each in zip(starts, mine, strict=True)
        ]
        previous = 0
        for note in notes:
            if note.kind != STEP:
                continue
            if not any(began <= note.began <= ended for began, ended in outcome.windows):
                previous = 0
                continue
            at = bisect_right(starts, note.ended) - 1
            if at >= 0 and note.began <= ends[at]:
                during[outcome.formats[at]].append((note.ended - note.began) / 1e6)
            else:
                outside.append((note.ended - note.began) / 1e6)
                if previous and (at < 0 or previous > ends[at]):
                    pauses.append((note.ended - previous) / 1e6)
            previous = note.ended
    for other in (False, True):
        of_this = [each for each in swaps if each.other_format is other]
        if not of_this:
            continue
        served = [each.served_s for each in of_this if each.served_s is not None]
        yield Phase(
            NAMES[other],
            sum(each is other for each in outcome.formats),
            len(served),
            float(np.median(served)) if served else math.nan,
            max(served, default=math.nan),
            _times(during[other]),
            _times(outside),
            max((each.pause_ms for each in of_this), default=math.nan),
            max(pauses, default=math.nan),
        )


def growth(outcome: Outcome) -> Iterator[Growth]:
    """Of each phase, because its versions are others, and of as many beats without promotions."""
    for other in (False, True):
        numbers = {number for number, each in enumerate(outcome.formats) if each is other}
        warm = {number for number in numbers if number - min(numbers) >= WARM}
        yield from _growth(NAMES[other], [each for each in outcome.used if each.swap in warm])
    yield from _growth(UNPROMOTED, outcome.unpromoted)


def _growth(phase: str, used: Sequence[Used]) -> Iterator[Growth]:
    for worker in sorted({each.worker for each in used}):
        mine = [each for each in used if each.worker == worker]
        for what in ("rss_mb", "threads", "files"):
            values = [float(getattr(each, what)) for each in mine]
            if len(values) < 2:
                continue
            slope = float(np.polyfit([each.swap for each in mine], values, 1)[0]) * 100
            yield Growth(phase, worker, what, values[0], values[-1], max(values), round(slope, 3) + 0.0)


def as_json(outcome: Outcome, swaps: Sequence[Swap]) -> dict[str, Any]:
    """All figures, and the data of the plot."""
    return {
        "options": asdict(outcome.options),
        "seconds": sum(ended - began for began, ended in outcome.windows) / _S,
        "oracle": None if outcome.verdict is None else asdict(outcome.verdict),
        "phases": [{**asdict(each), "ratio": each.ratio} for each in phases(outcome, swaps)],
        "growth": [asdict(each) for each in growth(outcome)],
        "swaps": [asdict(each) for each in swaps],
        "used": [each._asdict() for each in outcome.used],
        "unpromoted": [each._asdict() for each in outcome.unpromoted],
    }


def _end_of(outcome: Outcome, number: int) -> int:
    """The next promotion, or the end of its window."""
    began = outcome.promoted[number]
    window = next(ended for start, ended in outcome.windows if start <= began <= ended)
    return min(window, *outcome.promoted[number + 1 : number + 2], window)


class _Steps:
    """The steps of one worker, by time."""

    def __init__(self, notes: Sequence[Note]) -> None:
        self._steps = sorted((note.ended, note.began) for note in notes if note.kind == STEP)
        self._ends = [ended for ended, _ in self._steps]

    def longest_pause(self, began: int, ended: int) -> float:
        """The longest time between the ends of two steps, one of which is in this time, ms."""
        first = max(0, bisect_left(self._ends, began) - 1)
        return (
            max((b - a for a, b in pairwise(self._ends[first : bisect_right(self._ends, ended) + 1])), default=0) / 1e6
        )

    def slowest(self, began: int, ended: int) -> float:
        """The longest step that ended in this time, ms."""
        mine = self._steps[bisect_left(self._ends, began) : bisect_right(self._ends, ended)]
        return max((end - begin for end, begin in mine), default=0) / 1e6


def _times(values: Sequence[float]) -> Times:
    if not values:
        return Times(0, math.nan, math.nan, math.nan)
    return Times(len(values), *(float(each) for each in np.percentile(values, [50, 99, 100])))
