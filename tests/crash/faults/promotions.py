"""Versions are promoted while everything goes on: good ones, bad ones, many at once, and while a worker dies of it."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import psutil

from model.version.registry import ModelVersion
from stream.fault_points import Point
from stream.promotion.record import Promotion, Report
from tests.crash.faults.common import Inject, continue_at
from tests.crash.process import Worker
from tests.crash.world import Broken, NotReached, World, kill_at, stop_at
from tests.processes import wait_until

SERVED_WITHIN_S: Final = 75.0
TRIED_WITHIN_S: Final = 30.0
CHILD_ENDS_WITHIN_S: Final = 30.0
SAME_FORMAT, OTHER_FORMAT = True, False


def promoted(same_format: bool) -> Inject:
    """Another version, of the memory format that serves or of another: every worker serves it."""

    def inject(world: World) -> float:
        began = time.time()
        _serve(world, world.promote(_another(world, same_format)))
        return began

    return inject


def rolled_back(world: World) -> float:
    """To another memory format and back, within a moment."""
    before = world.serves
    _serve(world, world.promote(_another(world, OTHER_FORMAT)))
    world.pause_between(0, 2)
    began = time.time()
    _serve(world, world.promote(before, kind="rollback"))
    return began


def several(world: World) -> float:
    """Faster than a worker can load them: the last one counts."""
    began = time.time()
    for _ in range(5):
        last = world.promote(_another(world))
    _serve(world, last)
    return began


def killed_at(point: Point) -> Inject:
    """SIGKILL at a point that a version passes on its way."""

    def inject(world: World) -> float:
        worker = world.victim()
        made: list[Promotion] = []
        same = OTHER_FORMAT if point is Point.REFOLDED else None
        event = world.at(worker, kill_at(point), provoke=lambda: made.append(world.promote(_another(world, same))))
        _serve(world, made[0])
        return event.time

    return inject


def killed_while_tried(world: World) -> float:
    """SIGKILL while a child of the worker tries a version: the child ends as well."""
    worker = world.victim()
    for passed in worker.files.glob("*/.models/*/.passed*"):
        passed.unlink(missing_ok=True)
    promotion = world.promote(_another(world))
    try:
        wait_until(lambda: bool(_children(worker)), TRIED_WITHIN_S, "a version is tried")
    except TimeoutError:
        _serve(world, promotion)
        raise NotReached(f"{worker.name} tried {promotion.version} in no time, or not at all") from None
    children = _children(worker)
    world.pause_between(0, 1.5)
    began = time.time()
    worker.kill()
    try:
        wait_until(lambda: not any(each.is_running() for each in children), CHILD_ENDS_WITHIN_S, "the child ends")
    except TimeoutError as error:
        raise Broken(f"the child of {worker.name} goes on after it was killed: {children}") from error
    _serve(world, promotion)
    return began


def paused_at_the_swap(world: World) -> float:
    """SIGSTOP past the session between two versions: the partitions go to a worker that may still serve the older."""
    worker = world.victim()
    made: list[Promotion] = []
    order = stop_at(Point.MODEL_SWAPPED)
    event = world.at(worker, order, provoke=lambda: made.append(world.promote(_another(world))))
    continue_at(worker, event.time + world.patience.session + 1.0)
    _serve(world, made[0])
    return event.time


def while_cut_off(world: World) -> float:
    """Promoted while no worker reaches Kafka."""
    began = time.time()
    world.proxy.cut()
    try:
        promotion = world.promote(_another(world))
        world.pause_between(1, 3)
    finally:
        world.proxy.heal()
    _serve(world, promotion)
    return began


def bad(world: World) -> float:
    """A version that cannot serve, forced: each worker says why and serves on; the next good one works."""
    began = time.time()
    _refuse(
        world, world.promote(_a_bad_one(world), forced=("trial",), why="the tests force it"), world.workers.values()
    )
    _serve(world, world.promote(_another(world)))
    return began


def bad_while_starting(world: World) -> float:
    """A worker is killed while a version that cannot serve is what is promoted: it serves what it has."""
    worker = world.victim()
    began = time.time()
    promotion = world.promote(_a_bad_one(world), forced=("trial",), why="the tests force it")
    world.pause_between(0, 3)
    worker.kill()
    wait_until(worker.running, TRIED_WITHIN_S, f"{worker.name} is started again")
    try:
        wait_until(worker.taking, SERVED_WITHIN_S, f"{worker.name} takes records; log: {worker.log}")
    except TimeoutError as error:
        raise Broken(f"{promotion.version} is promoted, which cannot serve: {error}") from error
    _serve(world, world.promote(_another(world)))
    return began


def registry_away(world: World) -> float:
    """A worker starts, and nowhere is the version that is promoted: it serves what it has, or waits."""
    worker = world.victim()
    if world.promotion is None:
        _serve(world, world.promote(_another(world)))
    promotion = world.promotion
    assert promotion is not None
    away = world.models.with_name(f"{world.models.name}-away")
    began = time.time()
    excuse = round(began * 1000)
    try:
        with worker.killed():
            world.models.rename(away)
            for copy in worker.files.glob(f"*/.models/{promotion.sha256}"):
                (copy / "manifest.json").unlink()
        _until_reported(
            world,
            [worker],
            lambda report: report.since_ms > excuse and (report.source == "local" or report.state == "waiting"),
            f"does without {promotion.version}",
        )
        world.pause_between(0, 3)
    finally:
        away.rename(world.models)
        world.excused.append((excuse, round(time.time() * 1000) + round(SERVED_WITHIN_S * 1000)))
    _serve(world, promotion)
    return began


def _another(world: World, same_format: bool | None = None) -> ModelVersion:
    """A good version that does not serve now."""
    serves = world.serves.manifest().memory_format
    fits = [
        each
        for each in world.versions
        if each.reference != world.serves.reference
        and (same_format is None or (each.manifest().memory_format == serves) is same_format)
    ]
    if not fits:
        raise NotReached(f"no other version has the memory format of {world.serves.reference}")
    return world.chosen.choice(fits)


def _a_bad_one(world: World) -> ModelVersion:
    return world.chosen.choice(list(world.bad))


def _serve(world: World, promotion: Promotion) -> None:
    """Wait until every worker says that it serves this."""
    _until_reported(
        world,
        world.workers.values(),
        lambda report: (report.state, report.promotion, report.serves) == ("serving", promotion.id, promotion.version),
        f"serves {promotion.version}",
    )


def _refuse(world: World, promotion: Promotion, workers: Iterable[Worker]) -> None:
    """Wait until each of these says that it refused this, and serves something else."""
    _until_reported(
        world,
        workers,
        lambda report: (
            (report.state, report.of_promotion) == ("refused", promotion.id)
            and bool(report.why)
            and report.serves not in (None, promotion.version)
        ),
        f"refuses {promotion.version}",
    )


def _until_reported(world: World, workers: Iterable[Worker], fits: Callable[[Report], bool], what: str) -> None:
    names = [worker.name for worker in workers]

    def lacking() -> list[str]:
        reports = world.reports()
        return [f"{name}: {reports.get(name)}" for name in names if name not in reports or not fits(reports[name])]

    try:
        wait_until(lambda: not lacking(), SERVED_WITHIN_S, f"each worker {what}")
    except TimeoutError as error:
        raise Broken(f"{error}: {'; '.join(lacking())}") from error


def _children(worker: Worker) -> list[psutil.Process]:
    """The processes in which it tries versions."""
    pid = worker.pid
    with suppress(psutil.Error):
        if pid is not None:
            return [
                each
                for each in psutil.Process(pid).children(recursive=True)
                if "model.version.trial" in " ".join(each.cmdline())
            ]
    return []
