"""The workers as the view sees them: who serves what, and how far each partition is. Read on a thread of its own."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from stream.kafka.group_members import Member, group_members
from stream.kafka.models_topic import ModelsReader
from stream.kafka.options import logger_of_command
from stream.promotion.followers import followers
from stream.promotion.record import Models
from stream.settings import Settings

logger = logging.getLogger(__name__)

LOOKS_EVERY_S: Final = 2.0
STANDS_STILL_AFTER_S: Final = 15.0
"""A partition with records left whose position has not moved for so long is not being read."""
_CALL_S: Final = 5.0

Phase: TypeAlias = Literal["up to date", "behind", "standing still", "no worker", "unknown"]


class Partition(msgspec.Struct, frozen=True):
    """One partition of the interactions topic."""

    partition: int
    phase: Phase
    worker: str | None
    """Whose it is; None if it is nobody's, or Kafka does not say."""
    version: str | None
    """NAME@VERSION that made its newest lists."""
    position: int
    """The offset of the next interaction that the states lack."""
    lag: int | None
    """Offsets from there to the end, markers of transactions among them; None if Kafka does not answer."""


class Worker(msgspec.Struct, frozen=True):
    """One worker, from its report and the members of the group."""

    worker: str
    doing: str
    serves: str | None
    partitions: int | None
    since_ms: int | None
    why: str | None


class Workers(msgspec.Struct, frozen=True):
    """The answer of `GET /workers`."""

    application: str
    champion: str | None
    """The version that the alias names, NAME@VERSION."""
    promoted_ms: int | None
    group_known: bool
    """Whether Kafka says who is in the group. The embedded broker does not."""
    workers: list[Worker]
    partitions: list[Partition]
    interactions: int
    """Sum of the positions. Its difference between two answers is what workers took meanwhile."""
    folds: int
    """Since the view was ready."""
    lists: int
    """Since the view was ready."""


class Fleet:
    """Looks at the group and the topic of models every few seconds."""

    def __init__(self, settings: Settings, partitions: int, wall_ms: Callable[[], int]) -> None:
        self._settings, self._wall_ms = settings, wall_ms
        self._options = {"bootstrap.servers": settings.bootstrap_servers, **settings.kafka, "log_level": 0}
        self._places = [TopicPartition(settings.interactions_topic, number) for number in range(partitions)]
        self._closing = threading.Event()
        self._models = Models()
        self._members: list[Member] | None = None
        self._high: Mapping[int, int] = {}
        self._moved: dict[int, tuple[int, float]] = {}

    async def follow(self) -> None:
        """Look until `close`."""
        await asyncio.to_thread(self._run)

    def _run(self) -> None:
        reader = ModelsReader(self._options, self._settings.app)
        admin = AdminClient(self._options, logger=logger_of_command())
        try:
            while not self._closing.is_set():
                try:
                    self._look(admin)
                except KafkaException as error:
                    logger.debug("no look at the workers: %s", error)
                until = time.monotonic() + LOOKS_EVERY_S
                while not self._closing.is_set() and (left := until - time.monotonic()) > 0:
                    if reader.poll(min(left, 0.2)):
                        # What another thread reads is never half changed: models are replaced, their maps copied.
                        seen = reader.models
                        self._models = Models(dict(seen.aliases), dict(seen.history), dict(seen.workers))
        finally:
            reader.close()

    def _look(self, admin: AdminClient) -> None:
        self._members = group_members(admin, self._settings.app)
        latest: dict[TopicPartition, Any] = {place: OffsetSpec.latest() for place in self._places}
        asked = admin.list_offsets(latest, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=_CALL_S)
        self._high = {place.partition: asked[place].result(2 * _CALL_S).offset for place in self._places}

    def seen(
        self, positions: Mapping[int, int | None], versions: Mapping[int, str | None], *, folds: int, lists: int
    ) -> Workers:
        """Args:
        positions, versions: of each partition, from the changelog.
        """
        members, alias = self._members, self._settings.follow
        known = None if members is None else {each.worker: each.partitions for each in members if each.worker}
        found = followers(self._models, alias, known, self._wall_ms())
        owners = {number: each.worker for each in members or () for number in each.numbers}
        now = time.monotonic()
        return Workers(
            application=self._settings.app,
            champion=None if found.promotion is None else found.promotion.version,
            promoted_ms=None if found.promotion is None else found.promotion.when_ms,
            group_known=found.group_known,
            workers=[
                Worker(each.worker, each.doing, each.serves, each.partitions, each.since_ms, each.why)
                for each in found.workers
            ],
            partitions=[
                self._partition(number, position or 0, versions.get(number), owners, known is not None, now)
                for number, position in sorted(positions.items())
            ],
            interactions=sum(position or 0 for position in positions.values()),
            folds=folds,
            lists=lists,
        )

    def _partition(
        self,
        number: int,
        position: int,
        version: str | None,
        owners: Mapping[int, str | None],
        group_known: bool,
        now: float,
    ) -> Partition:
        end = self._high.get(number)
        lag = None if end is None else max(0, end - position)
        if self._moved.get(number, (None,))[0] != position:
            self._moved[number] = (position, now)
        still = now - self._moved[number][1] >= STANDS_STILL_AFTER_S
        return Partition(
            partition=number,
            phase=phase(lag, owned=number in owners if group_known else None, still=still),
            worker=owners.get(number),
            version=version,
            position=position,
            lag=lag,
        )

    def close(self) -> None:
        self._closing.set()


def phase(lag: int | None, *, owned: bool | None, still: bool) -> Phase:
    """What can be said of a partition from outside.

    Args:
        owned: whether a worker has it; None if Kafka does not say.
        still: its position has not moved for a while.
    """
    if owned is False:
        return "no worker"
    if lag is None:
        return "unknown"
    # The position stays before the marker of a producer's transaction until the next record.
    if lag <= 1:
        return "up to date"
    return "standing still" if still else "behind"
