"""Which fault comes next: by the seed, and every kind before any comes again."""

import random
from collections.abc import Iterator, Sequence

from tests.crash.faults import Fault

_QUICK_S = 4.0


def order(faults: Sequence[Fault], chosen: random.Random, once: Sequence[Fault] = ()) -> Iterator[Fault]:
    """Rounds without an end, the first one ended by what comes once. In it quick faults come first: a short run sees
    many kinds.
    """
    if not faults:
        yield from (each for _ in range(1000) for each in once)
        return
    quick = [fault for fault in faults if fault.lasts_s <= _QUICK_S]
    slow = [fault for fault in faults if fault.lasts_s > _QUICK_S]
    yield from chosen.sample(quick, len(quick))
    yield from chosen.sample(slow, len(slow))
    yield from once
    while True:
        yield from chosen.sample(faults, len(faults))


class Schedule:
    """Faults that fit into the time that is left."""

    def __init__(self, faults: Sequence[Fault], chosen: random.Random, once: Sequence[Fault] = ()) -> None:
        self._order = order(faults, chosen, once)
        self._many = 2 * (len(faults) + len(once))
        self._waiting: list[Fault] = []

    def next(self, left_s: float) -> Fault | None:
        """The next one that fits; what does not fit keeps its place. None: nothing fits."""
        for fault in self._waiting:
            if fault.lasts_s <= left_s:
                self._waiting.remove(fault)
                return fault
        for _ in range(self._many):
            fault = next(self._order)
            if fault.lasts_s <= left_s:
                return fault
            self._waiting.append(fault)
        return None
