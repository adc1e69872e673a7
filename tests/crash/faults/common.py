"""The parts that faults share."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tests.crash.process import Worker
from tests.crash.world import Broken, World

Inject: TypeAlias = Callable[[World], float]
"""Causes a fault, waits for its end, undoes it; returns when it began (wall clock). Raises NotReached or Broken."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`lasts_s`: about how long it takes, to choose faults that fit into the rest of a run."""

    name: str
    inject: Inject
    lasts_s: float = 3.0


def continue_at(worker: Worker, at: float) -> None:
    """Continue a stopped worker at this moment, whatever happens until then."""
    try:
        until(at)
    finally:
        worker.resume()


def until(at: float) -> None:
    time.sleep(max(0.0, at - time.time()))


def ends_well(extra: Worker) -> None:
    code = extra.terminate()
    if code != 0:
        raise Broken(f"SIGTERM ended {extra.name} with exit code {code}, expected 0; log: {extra.log}")
