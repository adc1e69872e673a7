"""What becomes of the input once it is read."""

import time
from typing import Final

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from tests.crash.reading import ends, places_of
from tests.crash.world import Broken, World
from tests.processes import Committed, wait_until

READ_WITHIN_S: Final = 60.0


def deleted(world: World) -> float:
    """Nobody writes, the workers read to the end, and retention deletes everything, markers included. Then one starts
    again, with its state or without.
    """
    worker = world.victim()
    with world.nobody_writes():
        _read_to_the_end(world)
        world.keep_input()
        admin = AdminClient({"bootstrap.servers": world.kafka.direct, "log_level": 2})
        everything = [TopicPartition(world.topic, number, -1) for number in range(world.partitions)]
        began = time.time()
        for future in admin.delete_records(everything).values():
            future.result(10)
        if world.chosen.random() < 0.5:
            with worker.killed():
                worker.lose_state()
        else:
            worker.kill()
    return began


def _read_to_the_end(world: World) -> None:
    """Wait until the lag is 0, as every tool sees it."""
    admin = AdminClient({"bootstrap.servers": world.kafka.direct, "log_level": 2})
    places = places_of(admin, world.topic)
    committed = Committed(world.kafka.direct, world.app, world.topic)
    try:
        wait_until(lambda: committed.offsets() == ends(admin, places), READ_WITHIN_S, "the lag is 0")
    except TimeoutError as error:
        raise Broken(f"committed {committed.offsets()}, ends {ends(admin, places)}: {error}") from error
