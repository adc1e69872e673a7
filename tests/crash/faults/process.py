"""A worker ends, or is slow."""

import logging
import time
from typing import Final

from stream.fault_points import Point
from stream.kafka.names import worker_id
from tests.crash.faults.common import Inject, continue_at, until
from tests.crash.plan import Order
from tests.crash.world import Broken, NotReached, World, kill_at, sleep_at, stop_at

logger = logging.getLogger(__name__)

DELIVERED_WITHIN_S: Final = 20.0
SWEPT_WITHIN_S: Final = 11.0
"""Kafka looks every 10 s for transactions past their time-out."""


def killed(world: World) -> float:
    worker = world.victim()
    world.pause_between(0, 0.5)
    began = time.time()
    worker.kill()
    return began


def killed_at(point: Point) -> Inject:
    """SIGKILL at a point that every step passes."""

    def inject(world: World) -> float:
        return world.at(world.victim(), kill_at(point, world.chosen.randint(1, 3))).time

    return inject


def killed_at_start(point: Point) -> Inject:
    """SIGKILL at a point that a starting worker passes."""

    def inject(world: World) -> float:
        worker = world.victim()
        return world.at(worker, kill_at(point), provoke=worker.kill).time

    return inject


def killed_while_restoring(world: World) -> float:
    worker = world.victim()

    def start_with_nothing() -> None:
        with worker.killed():
            worker.lose_state()

    # At the first: a small changelog is read in two or three slices.
    return world.at(worker, kill_at(Point.RESTORING), provoke=start_with_nothing).time


def killed_after_an_abort(world: World) -> float:
    """Kafka refuses the step, because the group removed the worker; the kill comes before the worker reads it again."""
    worker = world.victim()
    before = len(worker.events())
    event = world.at(worker, stop_at(Point.COMPUTED), kill_at(Point.ABORTED))
    continue_at(worker, event.time + world.patience.session + 2.0)
    world.next_event(worker, before + 1)
    return event.time


def killed_while_leaving(world: World) -> float:
    worker = world.victim()

    def leave() -> None:
        with worker.terminated():
            pass

    return world.at(worker, kill_at(Point.GONE), provoke=leave).time


def killed_after_a_late_end(world: World) -> float:
    """The network delivers the end of one transaction within the next one; then the worker dies (librdkafka #5423)."""
    worker = world.victim()
    began = time.time()
    hold = world.proxy.hold(worker_id(world.app, worker.name))
    try:
        if not hold.delivered.wait(DELIVERED_WITHIN_S):
            raise NotReached(f"{worker.name} did not end a transaction and begin another")
        logger.info("the late EndTxn of %s was answered with error code %s", worker.name, hold.answer)
        worker.kill()
    finally:
        world.proxy.let_go(hold)
    return began


def raised(world: World) -> float:
    """An unexpected exception."""
    point = world.chosen.choice([Point.COMPUTED, Point.BEGUN, Point.PRODUCED, Point.OFFSETS_SENT, Point.WRITTEN_PARTLY])
    return world.at(world.victim(), Order(point, "raise")).time


def terminated(world: World) -> float:
    """SIGTERM, then a start, as in a deployment. It must end with exit code 0."""
    worker = world.victim()
    began = time.time()
    code = worker.terminate()
    worker.start()
    if code != 0:
        raise Broken(f"SIGTERM ended {worker.name} with exit code {code}, expected 0; log: {worker.log}")
    return began


def paused(world: World) -> float:
    """SIGSTOP for longer than the session."""
    worker = world.victim()
    world.pause_between(0, 0.5)
    began = time.time()
    worker.pause()
    continue_at(worker, began + world.patience.session + world.chosen.uniform(0.5, 1.5))
    return began


def paused_past_deletions(world: World) -> float:
    """When the worker continues, the changelog no longer has the deletions of the meantime."""
    worker = world.victim()
    began = time.time()
    worker.pause()
    continue_at(worker, began + 2.0 * world.deletions_kept_s + 5.0)
    return began


def paused_at(point: Point) -> Inject:
    """SIGSTOP within a step, longer than the session, shorter than a transaction may last."""

    def inject(world: World) -> float:
        worker = world.victim()
        event = world.at(worker, stop_at(point, world.chosen.randint(1, 3)))
        continue_at(worker, event.time + world.patience.session + 1.0)
        return event.time

    return inject


def paused_past_the_transaction(point: Point) -> Inject:
    def inject(world: World) -> float:
        worker = world.victim()
        event = world.at(worker, stop_at(point))
        continue_at(worker, event.time + world.patience.transaction + SWEPT_WITHIN_S)
        return event.time

    return inject


def asleep_past_the_transaction(point: Point) -> Inject:
    """The process is alive, its heartbeats go on, and its transaction times out."""

    def inject(world: World) -> float:
        seconds = world.patience.transaction + SWEPT_WITHIN_S
        event = world.at(world.victim(), sleep_at(point, seconds))
        until(event.time + seconds)
        return event.time

    return inject


def slow_step(world: World) -> float:
    """Longer than the group waits for the next poll."""
    seconds = world.patience.poll + 2.0
    event = world.at(world.victim(), sleep_at(Point.COMPUTED, seconds))
    until(event.time + seconds)
    return event.time


def slow_step_while_another_joins(world: World) -> float:
    """The group waits in vain for the worker in a rebalance, and removes it."""
    seconds = world.patience.poll + 2.0
    event = world.at(world.victim(), sleep_at(Point.COMPUTED, seconds))
    with world.member() as joining:
        while (left := event.time + seconds - time.time()) > 0:
            joining.poll(min(left, 0.5))
    return event.time
