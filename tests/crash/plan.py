"""Orders for a worker at its fault points: the driver writes them, the worker carries them out.

The worker's folder has three files. `plan` (JSON): open orders; removed when they are carried out. `events` (JSON
lines): orders that were carried out. `taking`: the id of the process that reads records; touched while it does.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from stream.fault_points import Point

PLAN, EVENTS, TAKING = "plan", "events", "taking"
_TOUCH_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Order:
    """At the `count`-th time from now that `point` is passed: `kill`, `stop`, `raise`, or `sleep:SECONDS`."""

    point: Point
    action: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Event:
    """An order that is about to be carried out; `time` is the wall clock's."""

    time: float
    pid: int
    point: str
    action: str


class Injected(Exception):
    """What `raise` raises: no error of the program's own."""


def write(folder: Path, orders: Sequence[Order]) -> None:
    """Carried out one after the other: the second is looked at when the first has happened."""
    partial = folder / f"{PLAN}.partial"
    partial.write_text(json.dumps({"id": uuid4().hex, "orders": [asdict(order) for order in orders]}))
    partial.replace(folder / PLAN)


def withdraw(folder: Path) -> None:
    (folder / PLAN).unlink(missing_ok=True)


def events(folder: Path) -> list[Event]:
    path = folder / EVENTS
    return [Event(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def taking(folder: Path) -> tuple[int, float] | None:
    """The process that took records last, and when, by the wall clock."""
    path = folder / TAKING
    try:
        return int(path.read_text()), path.stat().st_mtime
    except FileNotFoundError:
        return None


class Injector:
    """The function that a worker calls at its named points (`stream.fault_points.At`)."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock
        self._plan = str(folder / PLAN)
        self._seen: dict[str, int] = {}
        self._taking = folder / TAKING
        self._touched = 0.0

    def __call__(self, point: Point) -> None:
        if point == Point.POLLED and time.monotonic() - self._touched > _TOUCH_EVERY_S:
            self._touched = time.monotonic()
            # Never empty for a moment: the driver would take the worker for silent.
            partial = self._taking.with_suffix(".partial")
            partial.write_text(str(os.getpid()))
            partial.replace(self._taking)
        if os.path.exists(self._plan):  # noqa: PTH110  # at every point of every step: a Path costs several times as much
            self._follow(point)

    def _follow(self, point: Point) -> None:
        try:
            plan = json.loads(Path(self._plan).read_text())
        except FileNotFoundError:
            return  # withdrawn in this moment
        order = Order(**plan["orders"][0])
        if order.point != point:
            return
        seen = self._seen[plan["id"]] = self._seen.get(plan["id"], 0) + 1
        if seen < order.count:
            return
        if later := plan["orders"][1:]:
            write(self._folder, [Order(**each) for each in later])
        else:
            withdraw(self._folder)
        self._note(order)
        self._act(order)

    def _note(self, order: Order) -> None:
        event = Event(self._clock(), os.getpid(), order.point, order.action)
        with (self._folder / EVENTS).open("a") as out:
            out.write(json.dumps(asdict(event)) + "\n")

    def _act(self, order: Order) -> None:
        action, _, argument = order.action.partition(":")
        match action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "sleep":
                time.sleep(float(argument))
            case "raise":
                raise Injected(f"at {order.point}")
            case _:
                raise ValueError(f"no such action: {order.action}")
