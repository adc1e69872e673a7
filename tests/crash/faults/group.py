"""Who else is in the group, and who else writes."""

import time

from confluent_kafka import KafkaException, Producer

from tests.crash.faults.common import continue_at, ends_well
from tests.crash.process import EXIT_USAGE
from tests.crash.world import TAKING_WITHIN_S, Broken, NotReached, World
from tests.processes import wait_until


def storm(world: World) -> float:
    """Members come and go, every second for eight."""
    began = time.time()
    while time.time() < began + 8:
        with world.member() as first:
            first.poll(0.5)
            with world.member() as second:
                second.poll(0.5)
                first.poll(0)
    return began


def another_worker(world: World) -> float:
    """A real worker joins, gets partitions, and leaves."""
    began = time.time()
    extra = world.extra(f"extra-{world.extras}", named=world.extras % 2 == 0)
    wait_until(extra.taking, TAKING_WITHIN_S, f"the additional worker takes records; log: {extra.log}")
    world.pause_between(0.5, 2)
    ends_well(extra)
    return began


def same_name_twice(world: World) -> float:
    """A second worker with the name of a live one is refused; the first keeps running."""
    worker = world.victim(lambda each: each is not world.on_disk)
    began = time.time()
    second = world.extra(worker.name, state=worker.state)
    code = second.ended(TAKING_WITHIN_S)
    if code != EXIT_USAGE:
        raise Broken(f"a second worker named {worker.name} ended with {code}, expected {EXIT_USAGE}; log: {second.log}")
    return began


def same_folder_twice(world: World) -> float:
    """Two workers with different names share one state folder, which is allowed."""
    worker = world.victim(lambda each: each is not world.on_disk)
    began = time.time()
    second = world.extra(f"beside-{world.extras}", state=worker.state, named=world.extras % 2 == 0)
    wait_until(
        second.taking,
        TAKING_WITHIN_S,
        f"a second worker in the state folder of {worker.name} takes records; log: {second.log}",
    )
    world.pause_between(0.5, 2)
    ends_well(second)
    return began


def foreign_transaction(world: World) -> float:
    """Another client's transaction is open in the changelog, and a worker must restore records behind it."""
    worker = world.victim()  # before it is open: who restores now, after another's fault, waits for its end as well
    producer = Producer(
        {
            "bootstrap.servers": world.kafka.direct,
            "transactional.id": "foreign",
            "transaction.timeout.ms": 60_000,
            "log_level": 2,
        }
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(world.partitions):
        producer.produce(f"{world.app}.changelog", b"foreign", b"\x07foreign\x01", partition=number)
    producer.flush(10)
    try:
        world.pause_between(0, 0.5)
        began = time.time()
        worker.kill()
        world.pause_between(3, 5)
    finally:
        try:
            producer.abort_transaction(30)
        except KafkaException as error:
            raise NotReached(f"the foreign transaction could not be ended: {error}") from error
    return began


def full_queue(world: World) -> float:
    """A worker whose producer's queue is far smaller than a step, with a backlog."""
    worker = world.victim()
    worker.terminate()
    worker.start(KAFKA_QUEUE_BUFFERING_MAX_MESSAGES="20")
    began = time.time()
    wait_until(worker.taking, TAKING_WITHIN_S, f"{worker.name} takes records with a small queue")
    worker.pause()
    continue_at(worker, time.time() + 1.0)
    world.pause_between(1, 2)
    ends_well(worker)
    worker.start()
    return began
