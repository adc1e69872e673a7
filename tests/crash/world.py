"""What a fault can change: the broker, the network, the workers, and their time-outs."""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException

from model.version.registry import ModelVersion
from stream.errors import StreamError
from stream.fault_points import Point
from stream.kafka.models_topic import read_models
from stream.promotion.record import Promotion, Report
from tests.crash.disk import SmallDisk
from tests.crash.feeder import Feeder
from tests.crash.kafka import Kafka
from tests.crash.plan import Event, Order, withdraw
from tests.crash.process import Supervisor, Worker
from tests.crash.proxy import Proxy
from tests.crash.reading import Kept
from tests.crash.upstream import Upstream
from tests.processes import wait_until
from tests.promoting import promote

TAKING_WITHIN_S = 60.0
POINT_WITHIN_S = 30.0

DELETIONS_KEPT_S = 20.0
"""delete.retention.ms of the changelog, by default a day: a store that is older must not be continued."""

BYSTANDER = "bystander"
"""The worker that no fault is aimed at."""


class NotReached(Exception):
    """The fault could not be caused here: what it needs did not happen."""


class Broken(Exception):
    """The expected result of a fault did not happen."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Time-outs of the workers' clients, seconds: short, so that a run sees many faults."""

    session: float = 2.0
    transaction: float = 5.0
    poll: float = 7.0

    def settings(self) -> dict[str, str]:
        return {
            "KAFKA_SESSION_TIMEOUT_MS": str(round(self.session * 1000)),
            "KAFKA_HEARTBEAT_INTERVAL_MS": str(round(self.session * 150)),
            "KAFKA_TRANSACTION_TIMEOUT_MS": str(round(self.transaction * 1000)),
            "KAFKA_MAX_POLL_INTERVAL_MS": str(round(self.poll * 1000)),
        }


@dataclass(slots=True)
class World:
    """What a run has. `workers` by worker name; `env`: the environment of every worker, without its name."""

    kafka: Kafka
    proxy: Proxy
    workers: Mapping[str, Worker]
    supervisor: Supervisor
    feeder: Feeder
    upstream: Upstream
    env: Mapping[str, str]
    app: str
    topic: str
    partitions: int
    folder: Path
    chosen: random.Random
    patience: Patience = field(default_factory=Patience)
    disk: SmallDisk | None = None
    on_disk: Worker | None = None
    """The worker whose state is on `disk`."""
    older: dict[str, Path] = field(default_factory=dict)
    """Worker name → a copy of its state folder from an earlier moment."""
    kept: Kept = field(default_factory=Kept)
    """Of the input, what was deleted."""
    deletions_kept_s: float = DELETIONS_KEPT_S
    models: Path = Path()
    """The registry of every worker."""
    versions: Sequence[ModelVersion] = ()
    """Those that can serve. The first one is configured."""
    bad: Sequence[ModelVersion] = ()
    """Those that cannot."""
    extras: int = 0
    """Workers that came and went."""
    promotion: Promotion | None = None
    """The newest one of a version that can serve."""
    excused: list[tuple[int, int]] = field(default_factory=list)
    """Times, epoch ms, in which a worker could not fetch what was promoted."""

    @property
    def serves(self) -> ModelVersion:
        """The version that serves, or is about to."""
        if self.promotion is None:
            return self.versions[0]
        return next(each for each in self.versions if each.reference == self.promotion.version)

    def promote(self, version: ModelVersion, **said: Any) -> Promotion:
        """Promote a version. `said`: as `tests.promoting.promote` takes it."""
        made = promote(self.kafka.direct, self.app, version, **said)
        if version in self.versions:
            self.promotion = made
        return made

    def reports(self) -> Mapping[str, Report]:
        """What each worker says that it serves; nothing while Kafka does not answer."""
        try:
            return read_models({"bootstrap.servers": self.kafka.direct}, self.app).workers
        except (StreamError, KafkaException):
            return {}

    def victim(self, fits: Callable[[Worker], bool] = lambda worker: True) -> Worker:
        """A worker that takes records now, and that may be harmed."""
        allowed = [worker for name, worker in self.workers.items() if name != BYSTANDER and fits(worker)]

        def taking() -> list[Worker]:
            return [worker for worker in allowed if worker.taking()]

        wait_until(
            lambda: bool(taking()), TAKING_WITHIN_S, f"one of {[worker.name for worker in allowed]} takes records"
        )
        return self.chosen.choice(taking())

    def at(self, worker: Worker, *orders: Order, provoke: Callable[[], object] = lambda: None) -> Event:
        """Give orders, and wait until the first is carried out."""
        before = len(worker.events())
        worker.order(*orders)
        provoke()
        return self.next_event(worker, before)

    def next_event(self, worker: Worker, before: int) -> Event:
        """The next event after the first `before` events."""
        try:
            wait_until(lambda: len(worker.events()) > before, POINT_WITHIN_S, "the point is passed")
        except TimeoutError:
            withdraw(worker.folder)
            # The worker may have reached the point just before the order was withdrawn.
            if len(worker.events()) <= before:
                raise NotReached(f"{worker.name} did not reach the point within {POINT_WITHIN_S:.0f} s") from None
        return worker.events()[before]

    def pause_between(self, shortest_s: float, longest_s: float) -> None:
        """Sleep for a random time."""
        time.sleep(self.chosen.uniform(shortest_s, longest_s))

    def extra(self, name: str, *, state: Path | None = None, named: bool = True) -> Worker:
        """One more worker, started once. The caller must end it."""
        self.extras += 1
        worker = Worker(name, self.env, self.folder / "extras" / str(self.extras), state=state, named=named)
        self.supervisor.look_after(worker)
        worker.start_once()
        return worker

    @contextmanager
    def nobody_writes(self) -> Iterator[None]:
        """The input does not grow within the block, and no transaction is open in it."""
        with ExitStack() as resting:
            resting.enter_context(self.upstream.at_rest())
            resting.enter_context(self.feeder.at_rest())
            yield

    def keep_input(self) -> None:
        """Keep what the input holds, for the oracle: it is about to be deleted."""
        self.kept.add(self.kafka.direct, self.topic)

    @contextmanager
    def member(self) -> Iterator[Consumer]:
        """One more member of the group, which reads and sends nothing, over the direct connection."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka.direct,
                "group.id": self.app,
                "partition.assignment.strategy": "cooperative-sticky",
                "enable.auto.commit": False,
                "session.timeout.ms": round(self.patience.session * 1000),
                "heartbeat.interval.ms": round(self.patience.session * 150),
                "max.poll.interval.ms": 30_000,
                "log_level": 2,
            }
        )
        consumer.subscribe([self.topic])
        try:
            yield consumer
        finally:
            consumer.close()


def kill_at(point: Point, count: int = 1) -> Order:
    return Order(point, "kill", count)


def stop_at(point: Point, count: int = 1) -> Order:
    return Order(point, "stop", count)


def sleep_at(point: Point, seconds: float, count: int = 1) -> Order:
    return Order(point, f"sleep:{seconds}", count)
