"""The broker ends, or is slow; so does the network to it."""

import time

from tests.crash.faults.common import Inject
from tests.crash.world import World


def killed(down_s: tuple[float, float]) -> Inject:
    def inject(world: World) -> float:
        began = time.time()
        world.kafka.kill()
        world.pause_between(*down_s)
        world.kafka.start()
        return began

    return inject


def terminated(world: World) -> float:
    """The workers are cut off first: a Kafka 4.3.1 that is shutting down, its partitions already without a leader, still takes the end of a
    transaction, leaves out the markers, and so commits a part of it. With one copy of each partition nothing a client does can help.
    """
    began = time.time()
    world.proxy.cut()
    try:
        world.pause_between(0.5, 1)
        world.kafka.terminate()
        world.pause_between(1, 5)
        world.kafka.start()
    finally:
        world.proxy.heal()
    return began


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
