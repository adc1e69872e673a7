"""Find the records that the model fails on, so that the other records are processed as if these had not come.

A record fails if the shortest poll that ends with it fails. It is left out, and the search continues with the rest. So
the result does not depend on where polls end. Runs do not depend on each other, so each is searched alone, and all at
the same time: one call of the model probes many runs, as long as none of them fails.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from model.errors import ModelFailed
from stream.decode import Place, Polled, Run
from stream.errors import StopAsked
from stream.step import Step


@dataclass(slots=True)
class _Search:
    """Search for the shortest part of one run that fails. Its first `good` records succeed; its first `bad` fail."""

    run: Run
    bad: int
    error: ModelFailed
    good: int = 0
    stride: int = 1
    """Doubled while probes succeed. A small start is good because failing records are often neighbours."""

    def probe(self) -> Run:
        return replace(self.run.first(self._probed()), good=self.good)

    def _probed(self) -> int:
        return min(self.good + self.stride, (self.good + self.bad) // 2)

    def learn(self, error: ModelFailed | None) -> None:
        probed = self._probed()
        if error is None:
            self.good, self.stride = probed, 2 * self.stride
        else:
            self.bad, self.error = probed, error

    @property
    def found(self) -> bool:
        return self.bad - self.good == 1

    @property
    def place(self) -> Place:
        return self.run.partition, self.run.offsets[self.bad - 1]

    def rest(self) -> Run:
        """The run without the record that was found. The records before that one succeed."""
        return replace(self.run.without(self.bad - 1), good=self.good)


def failing_records(step: Step, polled: Polled, stopping: Callable[[], bool]) -> Mapping[Place, ModelFailed]:
    """The records of a poll that the model fails on, and why; empty if it fails on no record alone.

    Args:
        step: the step that failed on the poll.
        stopping: True when the worker must stop.

    Raises:
        StopAsked: `stopping` returned True.
    """
    before = step.read(polled)
    _, runs = step.remember(polled, before)
    cadence = step.rules.cadence
    # A shorter poll could end after any interaction, with a list there.
    every = 1 if cadence == "interaction" else cadence
    found: dict[Place, ModelFailed] = {}
    while True:
        errors = _failures(lambda some: step.serve(some, before, cadence), runs)
        searches = [
            _Search(run, len(run.items), error, run.good)
            for run, error in zip(runs, errors, strict=True)
            if error is not None
        ]
        if not searches:
            return found
        while probing := [search for search in searches if not search.found]:
            if stopping():
                raise StopAsked("asked to stop while looking for the records that the model fails on")
            probes = _failures(lambda some: step.serve(some, before, every), [search.probe() for search in probing])
            for search, error in zip(probing, probes, strict=True):
                search.learn(error)
        found.update((search.place, search.error) for search in searches)
        runs = [rest for search in searches if len((rest := search.rest()).items) > rest.good]


def _failures(serve: Callable[[Sequence[Run]], object], runs: Sequence[Run]) -> list[ModelFailed | None]:
    """For each run, the model's error, or None. All runs are tried together; if that fails, in halves."""
    try:
        serve(runs)
    except ModelFailed as error:
        if len(runs) == 1:
            return [ModelFailed(str(error))]  # without its traceback, which keeps the arguments alive
    else:
        return [None] * len(runs)
    middle = len(runs) // 2
    return _failures(serve, runs[:middle]) + _failures(serve, runs[middle:])
