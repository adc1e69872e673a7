"""The disk, and what is on it."""

import shutil
import time

from tests.crash import damage
from tests.crash.disk import SmallDisk
from tests.crash.faults.common import Inject
from tests.crash.process import Worker
from tests.crash.world import TAKING_WITHIN_S, NotReached, World
from tests.processes import wait_until


def disk_full(world: World) -> float:
    """The disk fills up under a running worker, which must release a partition meanwhile."""
    disk, _ = _disk(world)
    disk.fill()
    began = time.time()
    try:
        with world.member() as member:
            member.poll(2.0)
        world.pause_between(1, 3)
    finally:
        disk.free()
    return began


def disk_full_at_start(world: World) -> float:
    disk, worker = _disk(world)
    disk.fill()
    began = time.time()
    try:
        worker.kill()
        world.pause_between(5, 8)
    finally:
        disk.free()
    return began


def disk_read_only(world: World) -> float:
    disk, worker = _disk(world)
    began = time.time()
    try:
        with worker.killed():
            disk.read_only()
        world.pause_between(5, 8)
    finally:
        disk.writable()
    return began


def _disk(world: World) -> tuple[SmallDisk, Worker]:
    if world.disk is None or world.on_disk is None:
        raise NotReached("this machine gives no mount namespace (unshare --map-root-user --mount)")
    return world.disk, world.victim(lambda worker: worker is world.on_disk)


def damaged(kind: damage.Kind) -> Inject:
    """Damaged RocksDB files, found at the next start."""

    def inject(world: World) -> float:
        worker = world.victim()
        with worker.terminated():
            done = damage.apply(kind, worker.files, world.chosen)
            began = time.time()
        if not done:
            raise NotReached(f"{worker.files} has no file to damage: {kind}")
        return began

    return inject


def lost(world: World) -> float:
    worker = world.victim()
    began = time.time()
    with worker.killed():
        worker.lose_state()
    return began


def older(world: World) -> float:
    """The state folder as it was some time ago: at the last fault of this kind, else a few seconds ago."""
    worker = world.victim()
    if worker.name not in world.older:
        _keep_copy(world, worker)
        wait_until(worker.taking, TAKING_WITHIN_S, f"{worker.name} takes records")
        world.pause_between(1, 2)
    began = time.time()
    with worker.killed():
        worker.lose_state()
        shutil.copytree(world.older[worker.name], worker.files)
    if world.chosen.random() < 0.5:
        wait_until(worker.taking, TAKING_WITHIN_S, f"{worker.name} takes records")
        _keep_copy(world, worker)
    return began


def _keep_copy(world: World, worker: Worker) -> None:
    copy = world.folder / "older" / worker.name
    with worker.terminated():
        if copy.exists():
            shutil.rmtree(copy)
        shutil.copytree(worker.files, copy)
    world.older[worker.name] = copy
