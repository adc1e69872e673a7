"""Every kind of fault. Each is brought about, lasts, and is undone when its function returns; which says when it began.

Restarting what failed is the supervisor's, not a fault's: after a kill nothing has to be undone.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from confluent_kafka import KafkaException, Producer

from stream.points import Point
from tests.crash import damage
from tests.crash.plan import Order
from tests.crash.process import EXIT_USAGE, Worker
from tests.crash.world import TAKING_WITHIN_S, Broken, NotReached, World, kill_at, sleep_at, stop_at
from tests.processes import wait_until

Inject: TypeAlias = Callable[[World], float]
"""Brings a fault about, waits for its end, undoes it; returns the wall-clock time of its beginning. Raises NotReached or Broken."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`lasts_s`: about how long it takes, for choosing what still fits into a run."""

    name: str
    inject: Inject
    lasts_s: float = 3.0


# --- a process ends ---


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

    return world.at(worker, kill_at(Point.RESTORING, world.chosen.randint(1, 3)), provoke=start_with_nothing).time


def killed_after_an_abort(world: World) -> float:
    """The step is refused, because the group went on without the worker; it is killed before it has gone back."""
    worker = world.victim()
    before = len(worker.events())
    event = world.at(worker, stop_at(Point.COMPUTED), kill_at(Point.ABORTED))
    _continue(worker, event.time + world.patience.session + 2.0)
    world.next_event(worker, before + 1)
    return event.time


def killed_while_leaving(world: World) -> float:
    worker = world.victim()

    def leave() -> None:
        with worker.terminated():
            pass

    return world.at(worker, kill_at(Point.GONE), provoke=leave).time


def raised(world: World) -> float:
    """An exception that nobody expects."""
    point = world.chosen.choice([Point.COMPUTED, Point.BEGUN, Point.PRODUCED, Point.OFFSETS_SENT, Point.WRITTEN_PARTLY])
    return world.at(world.victim(), Order(point, "raise")).time


def terminated(world: World) -> float:
    """SIGTERM, and a start: a deployment. It must end well."""
    worker = world.victim()
    began = time.time()
    code = worker.terminate()
    worker.start()
    if code != 0:
        raise Broken(f"SIGTERM ended {worker.slot} with exit code {code}, expected 0; log: {worker.log}")
    return began


# --- a process is slow ---


def paused(world: World) -> float:
    """SIGSTOP for longer than the session."""
    worker = world.victim()
    world.pause_between(0, 0.5)
    began = time.time()
    worker.pause()
    _continue(worker, began + world.patience.session + world.chosen.uniform(0.5, 1.5))
    return began


def paused_at(point: Point) -> Inject:
    """SIGSTOP in mid step, longer than the session, shorter than a transaction may last."""

    def inject(world: World) -> float:
        worker = world.victim()
        event = world.at(worker, stop_at(point, world.chosen.randint(1, 3)))
        _continue(worker, event.time + world.patience.session + 1.0)
        return event.time

    return inject


def paused_past_the_transaction(point: Point) -> Inject:
    def inject(world: World) -> float:
        worker = world.victim()
        event = world.at(worker, stop_at(point))
        _continue(worker, event.time + world.patience.transaction + 2.0)
        return event.time

    return inject


def asleep_past_the_transaction(point: Point) -> Inject:
    """The process is alive, its heartbeats go on, and its transaction times out."""

    def inject(world: World) -> float:
        seconds = world.patience.transaction + 2.0
        event = world.at(world.victim(), sleep_at(point, seconds))
        _until(event.time + seconds)
        return event.time

    return inject


def slow_step(world: World) -> float:
    """Longer than the group waits for the next poll."""
    seconds = world.patience.poll + 2.0
    event = world.at(world.victim(), sleep_at(Point.COMPUTED, seconds))
    _until(event.time + seconds)
    return event.time


def _continue(worker: Worker, at: float) -> None:
    try:
        _until(at)
    finally:
        worker.resume()


def _until(at: float) -> None:
    time.sleep(max(0.0, at - time.time()))


# --- the broker ---


def broker_killed(down_s: tuple[float, float]) -> Inject:
    def inject(world: World) -> float:
        began = time.time()
        world.kafka.kill()
        world.pause_between(*down_s)
        world.kafka.start()
        return began

    return inject


def broker_terminated(world: World) -> float:
    began = time.time()
    world.kafka.terminate()
    world.pause_between(1, 5)
    world.kafka.start()
    return began


def broker_paused(world: World) -> float:
    began = time.time()
    world.kafka.pause()
    try:
        world.pause_between(2, 5)
    finally:
        world.kafka.resume()
    return began


# --- the network ---


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


# --- the group ---


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
    """A real one, which comes, takes partitions, and leaves."""
    began = time.time()
    extra = world.extra(f"extra-{world.extras}")
    wait_until(extra.taking, TAKING_WITHIN_S, f"the additional worker takes records; log: {extra.log}")
    world.pause_between(0.5, 2)
    _ends_well(extra)
    return began


def same_slot_twice(world: World) -> float:
    """A second worker in a live one's slot is refused; the first goes on."""
    worker = world.victim(lambda each: each is not world.on_disk)
    began = time.time()
    second = world.extra(worker.slot, state=worker.state)
    second.leave_alone()
    code = second.ended(TAKING_WITHIN_S)
    if code != EXIT_USAGE:
        raise Broken(f"a second worker in slot {worker.slot} ended with {code}, expected {EXIT_USAGE}; log: {second.log}")
    return began


def same_folder_twice(world: World) -> float:
    """Two slots in one state folder are nothing special."""
    worker = world.victim(lambda each: each is not world.on_disk)
    began = time.time()
    second = world.extra(f"beside-{world.extras}", state=worker.state)
    wait_until(second.taking, TAKING_WITHIN_S, f"a second worker in the state folder of {worker.slot} takes records; log: {second.log}")
    world.pause_between(0.5, 2)
    _ends_well(second)
    return began


def _ends_well(extra: Worker) -> None:
    code = extra.terminate()
    if code != 0:
        raise Broken(f"SIGTERM ended {extra.slot} with exit code {code}, expected 0; log: {extra.log}")


# --- the disk ---


def disk_full(world: World) -> float:
    """Full under a running worker, which has to let go of a partition meanwhile."""
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


def _disk(world: World) -> tuple[damage.Disk, Worker]:
    if world.disk is None or world.on_disk is None:
        raise NotReached("this machine gives no mount namespace (unshare --map-root-user --mount)")
    return world.disk, world.victim(lambda worker: worker is world.on_disk)


# --- the state folder ---


def damaged(kind: damage.Kind) -> Inject:
    """Files that are not as RocksDB wrote them, found at the next start."""

    def inject(world: World) -> float:
        worker = world.victim()
        with worker.terminated():
            done = damage.apply(kind, worker.files, world.chosen)
            began = time.time()
        if not done:
            raise NotReached(f"{worker.files} has no file to damage: {kind}")
        return began

    return inject


def state_lost(world: World) -> float:
    worker = world.victim()
    began = time.time()
    with worker.killed():
        worker.lose_state()
    return began


def state_older(world: World) -> float:
    """The state folder as it was some time ago: at the last fault of this kind, else a few seconds ago."""
    worker = world.victim()
    if worker.slot not in world.older:
        _keep_copy(world, worker)
        wait_until(worker.taking, TAKING_WITHIN_S, f"{worker.slot} takes records")
        world.pause_between(1, 2)
    began = time.time()
    with worker.killed():
        worker.lose_state()
        shutil.copytree(world.older[worker.slot], worker.files)
    if world.chosen.random() < 0.5:
        wait_until(worker.taking, TAKING_WITHIN_S, f"{worker.slot} takes records")
        _keep_copy(world, worker)
    return began


def _keep_copy(world: World, worker: Worker) -> None:
    copy = world.folder / "older" / worker.slot
    with worker.terminated():
        if copy.exists():
            shutil.rmtree(copy)
        shutil.copytree(worker.files, copy)
    world.older[worker.slot] = copy


# --- Kafka's clients ---


def foreign_transaction(world: World) -> float:
    """Somebody's transaction is open in the changelog, and a worker has to restore behind it."""
    producer = Producer(
        {"bootstrap.servers": world.kafka.direct, "transactional.id": "foreign", "transaction.timeout.ms": 60_000, "log_level": 2}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(world.partitions):
        producer.produce(f"{world.app}.changelog", b"foreign", b"\x07foreign\x01", partition=number)
    producer.flush(10)
    try:
        began = killed(world)
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
    wait_until(worker.taking, TAKING_WITHIN_S, f"{worker.slot} takes records with a small queue")
    worker.pause()
    _continue(worker, time.time() + 1.0)
    world.pause_between(1, 2)
    _ends_well(worker)
    worker.start()
    return began


IN_A_STEP: Final = (
    Point.POLLED,
    Point.COMPUTED,
    Point.BEGUN,
    Point.PRODUCED,
    Point.OFFSETS_SENT,
    Point.COMMITTED,
    Point.WRITTEN_PARTLY,
    Point.WRITTEN,
)
AT_START: Final = (Point.ASSIGNED, Point.OPENED, Point.RESTORED)

FAULTS: Final[tuple[Fault, ...]] = (
    Fault("SIGKILL", killed),
    *(Fault(f"SIGKILL at {point}", killed_at(point)) for point in IN_A_STEP),
    *(Fault(f"SIGKILL at {point}", killed_at_start(point), 6) for point in AT_START),
    Fault("SIGKILL at restoring", killed_while_restoring, 6),
    Fault("SIGKILL at aborted", killed_after_an_abort, 7),
    Fault("SIGKILL at gone", killed_while_leaving, 4),
    Fault("exception", raised),
    Fault("SIGTERM", terminated),
    Fault("SIGSTOP past the session", paused, 4),
    *(
        Fault(f"SIGSTOP past the session at {point}", paused_at(point), 4)
        for point in (Point.COMPUTED, Point.PRODUCED, Point.OFFSETS_SENT, Point.COMMITTED)
    ),
    *(
        Fault(f"SIGSTOP past the transaction at {point}", paused_past_the_transaction(point), 10)
        for point in (Point.PRODUCED, Point.OFFSETS_SENT)
    ),
    *(Fault(f"transaction times out at {point}", asleep_past_the_transaction(point), 10) for point in (Point.PRODUCED, Point.OFFSETS_SENT)),
    Fault("slow step", slow_step, 12),
    Fault("broker SIGKILL", broker_killed((1, 5)), 15),
    Fault("broker SIGTERM", broker_terminated, 15),
    Fault("broker SIGSTOP", broker_paused, 6),
    Fault("broker gone for 25 s", broker_killed((25, 26)), 40),
    Fault("network cut", cut((1, 4)), 5),
    Fault("network cut past the transaction", cut((8, 12)), 16),
    Fault("connections reset", reset),
    Fault("network delayed by 200 ms", delayed, 7),
    Fault("network stalled", stalled, 8),
    Fault("rebalance storm", storm, 10),
    Fault("another worker comes and goes", another_worker, 8),
    Fault("same slot twice", same_slot_twice, 5),
    Fault("two slots, one state folder", same_folder_twice, 8),
    Fault("disk full", disk_full, 8),
    Fault("disk full at start", disk_full_at_start, 10),
    Fault("disk read-only at start", disk_read_only, 10),
    *(Fault(f"damaged {kind}", damaged(kind), 5) for kind in damage.Kind),
    Fault("state lost", state_lost, 5),
    Fault("state of an older day", state_older, 12),
    Fault("foreign transaction in the changelog", foreign_transaction, 8),
    Fault("full producer queue", full_queue, 10),
)
LONG: Final[tuple[Fault, ...]] = (Fault("broker gone for 3 minutes", broker_killed((180, 181)), 200),)
"""Once in a run that is long enough."""
