"""The broker ends, or is slow; so does the network to it."""

import time
from collections.abc import Callable

from tests.crash.faults.common import Inject
from tests.crash.world import World


def killed(down_s: tuple[float, float]) -> Inject:
    """SIGKILL: what it has not written stays unwritten."""
    return _away(lambda world: world.kafka.kill(), down_s)


def terminated(world: World) -> float:
    return _away(lambda world: world.kafka.terminate(), (1, 5))(world)


def _away(end: Callable[[World], None], down_s: tuple[float, float]) -> Inject:
    """The broker is ended, and started again.

    The workers are cut off from right before until every partition has its leader again. The coordinator of a Kafka
    4.3.1 leaves out the markers of a transaction for partitions that have no leader and calls it complete all the same:
    with one copy of each partition, a broker that ends in the middle of a commit leaves a transaction that is committed
    in part, or open for ever. Nothing a client does helps.
    """

    def inject(world: World) -> float:
        with world.upstream.at_rest():
            began = time.time()
            world.proxy.cut()
            try:
                world.pause_between(0.3, 1)  # what was being committed is now
                end(world)
                world.pause_between(*down_s)
                world.kafka.start()
            finally:
                world.proxy.heal()
        return began

    return inject


def paused(world: World) -> float:
    began = time.time()
    world.kafka.pause()
    try:
        world.pause_between(2, 5)
    finally:
        world.kafka.resume()
    return began


def cut(seconds: tuple[float, float]) -> Inject:
    def inject(world: World) -> float:
        began = time.time()
        world.proxy.cut()
        try:
            world.pause_between(*seconds)
        finally:
            world.proxy.heal()
        return began

    return inject


def reset(world: World) -> float:
    began = time.time()
    world.proxy.reset()
    return began


def delayed(world: World) -> float:
    began = time.time()
    world.proxy.delay(0.2)
    try:
        time.sleep(5)
    finally:
        world.proxy.heal()
    return began


def stalled(world: World) -> float:
    began = time.time()
    world.proxy.stall()
    try:
        world.pause_between(2, 6)
    finally:
        world.proxy.heal()
    return began
