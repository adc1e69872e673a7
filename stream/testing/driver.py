"""A worker without Kafka, for tests of what is built around it: interactions in, lists out, in milliseconds.

It is the worker's own loop with its own step, decoder, stores and model (`stream.worker.Worker`). Only the topics are
in memory. What a broker does is therefore not tested by it: rebalances, transactions, rights, other partitioners.

Like a worker, a driver lets torch compute with one thread. This holds for the process until the driver is closed.
"""

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import torch

from model.ids import Id
from model.version.cache import Cache
from model.version.registry import Registry
from state.codec import user_prefix
from state.store import StoreMemory, wipe
from stream.doubts import Doubts
from stream.event import EventReader
from stream.fault_points import passing
from stream.kafka.partitioner import partition_of
from stream.key_check import KeyCheck
from stream.keys import KeyFormat
from stream.partitions import Partitions
from stream.policy import RefusedShare, StepSize
from stream.ports import Counts
from stream.promotion.loading import Loader
from stream.refold import Refold
from stream.serving import Serving
from stream.settings import PREFIX, Settings
from stream.state_rows import Row, rows
from stream.step import Rules, Step, check_segment_length
from stream.testing.memory_link import MemoryLink
from stream.torch_threads import one_thread, use_threads
from stream.wire import Header, Recommendation, refusal
from stream.worker import Worker

START_MS: Final = 1_767_225_600_000
"""2026-01-01: the time at which a driver begins, epoch ms."""
_STORE: Final = StoreMemory(16 << 20)
_STEP: Final = 10_000
"""Records that are in one step at most."""


class Made(NamedTuple):
    """A record of the recommendations topic. `list`: None withdraws the user's last list."""

    user: str
    list: Recommendation | None


class Refused(NamedTuple):
    """A record of the dead letter topic."""

    key: bytes | None
    value: bytes | None
    error: str
    """The name of the error."""
    reason: str
    partition: int
    offset: int


class Driver:
    """A worker, its topics and its clock.

    ```python
    with Driver("models", model="films@3", recommend=1, top_k=5) as driver:
        driver.send("ann", "heat-1995")
        assert driver.lists()[-1].user == "ann"
    ```

    Args:
        models: the registry: a folder or a URL.
        model: the version that serves first, as `REC2PM_MODEL`; None: the newest one.
        partitions: of the interactions topic. A user's partition is the one that Kafka's own clients choose.
        now_ms: the time at which it begins, epoch ms. Time stands still until `advance`.
        settings: any setting of a worker, by its name without `REC2PM_` in lower case. What only a Kafka has, such as
            topics, is not used. Variables of the environment are not read.

    Raises:
        SettingsInvalid: a setting does not exist, or its value is wrong.
        ModelError: the version is not there, or cannot be loaded.
    """

    def __init__(
        self,
        models: str | os.PathLike[str],
        model: str | None = None,
        *,
        partitions: int = 1,
        now_ms: int = START_MS,
        **settings: Any,
    ) -> None:
        self._threads: Final = torch.get_num_threads()
        given = {f"{PREFIX}{name.upper()}": str(value) for name, value in settings.items()}
        self.settings: Final = Settings.from_environ(given)
        self.now_ms = now_ms
        one_thread()
        self._keys = KeyFormat(self.settings.key_format)
        self._scratch = tempfile.TemporaryDirectory(prefix="rec2pm-driver-")
        folder = Path(self._scratch.name)
        self._stores = folder / "stores"
        self._loader = Loader(registry=Registry(os.fspath(models)), cache=Cache(folder / "models"), at=passing)
        self._link = MemoryLink(partitions)
        self._seen_lists = self._seen_dead = self._promotions = 0
        self._serving = Serving(self._loader.configured(model))
        self._worker = self._started()

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the stores and delete them."""
        use_threads(self._threads)
        self._worker.partitions.close()
        self._scratch.cleanup()

    def send(self, user: str, item: Id, timestamp: int | None = None) -> int:
        """One interaction, in a step of its own.

        Args:
            timestamp: epoch ms; None: now.

        Returns:
            The offset of its record.
        """
        return self.send_all([(user, item, timestamp)])[0]

    def send_all(self, interactions: Iterable[tuple[str, Id, int | None]]) -> list[int]:
        """Interactions in one step, as a worker takes them that has a backlog: (user, item, epoch ms or None for now).

        Returns:
            The offsets of their records.
        """
        fields = self.settings.fields
        if len(fields.item) > 1 or len(fields.time) > 1 or fields.user or fields.event:
            raise ValueError("with REC2PM_*_FIELD settings, events are yours: give their bytes to `send_record`")
        (item_field,), (time_field,) = fields.item, fields.time
        offsets = [
            self._append(
                self._keys.key(user),
                msgspec.msgpack.encode({item_field: item, time_field: self.now_ms if timestamp is None else timestamp}),
            )
            for user, item, timestamp in interactions
        ]
        self._run()
        return offsets

    def send_record(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
    ) -> int:
        """A record as a producer of yours writes it, in a step of its own; returns its offset.

        Args:
            partition: None: that of the key; without a key, 0.
        """
        offset = self._append(key, value, [*(headers or {}).items()], partition)
        self._run()
        return offset

    def forget(self, user: str) -> None:
        """A null value for this user."""
        self.send_record(self._keys.key(user), None)

    def lists(self) -> list[Made]:
        """The records of the recommendations topic since the last call, in their order."""
        found = self._link.lists[self._seen_lists :]
        self._seen_lists = len(self._link.lists)
        return [Made(user.decode(), made) for user, made in found]

    def newest_list(self, user: str) -> Recommendation | None:
        """The list that a reader of the compacted topic has for a user; None if there is none."""
        key = user.encode()
        return next((made for each, made in reversed(self._link.lists) if each == key), None)

    def dead_letters(self) -> list[Refused]:
        """The records of the dead letter topic since the last call."""
        found = self._link.dead[self._seen_dead :]
        self._seen_dead = len(self._link.dead)
        refused = []
        for each in found:
            why = refusal(each.headers)
            assert why is not None
            refused.append(Refused(each.key, each.value, why.exception, why.message, why.partition, why.offset))
        return refused

    def user(self, user: str) -> Row | None:
        """What is remembered about a user, as `rec2pm state export` has it; None: nothing."""
        prefix = user_prefix(user.encode())
        for partition in self._worker.partitions.all():
            wanted = (record for record in partition.store.records() if record[0].startswith((prefix, b"\x00")))
            if (row := next(rows(wanted, partition.number), None)) is not None:
                return row
        return None

    def advance(self, seconds: float) -> None:
        """Let time pass. Memories of another format are rebuilt in the background meanwhile (`REC2PM_REFOLD_PER_S`)."""
        until = self.now_ms + round(seconds * 1000)
        while self.now_ms < until:
            self.now_ms = min(until, self.now_ms + 1000)
            self._worker.turn()

    def promote(self, reference: str) -> None:
        """Let another version of the registry serve from the next step on, as after `rec2pm models promote`.

        Raises:
            ModelError: it is not there, or cannot be loaded. The former one serves on.
        """
        self._promotions += 1
        promotion = f"driver-{self._promotions}"
        self._serving.offer(self._loader.configured(reference)._replace(source="promoted", promotion=promotion))

    @property
    def serves(self) -> str:
        """The version that makes the lists, NAME@VERSION."""
        return self._worker.step.recommender.model.reference

    @property
    def counts(self) -> Counts:
        """What the worker has done since it was started."""
        return self._worker.counts

    def crash(self) -> None:
        """Lose the process and its disk. The next worker restores everything from the changelog."""
        self._worker.partitions.close()
        wipe(self._stores)
        self._worker = self._started()

    def _append(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Iterable[Header] = (),
        partition: int | None = None,
    ) -> int:
        if partition is None:
            partition = partition_of(key, self._link.width) if key else 0
        return self._link.append(key, value, partition, self.now_ms, [*headers])

    def _run(self) -> None:
        while self._link.waiting:
            self._worker.turn()

    def _clock(self) -> float:
        return self.now_ms / 1000

    def _started(self) -> Worker:
        """A worker whose partitions are running."""
        settings, link = self.settings, self._link
        topic = settings.interactions_topic
        recommender = self._serving.serves.recommender
        partitions = Partitions(
            folder=self._stores,
            memory=_STORE,
            cache_users=settings.cache_users,
            begin_restore=link.begin_restore,
            resume=link.resume,
            pause=link.pause,
            check=lambda partition: check_segment_length(partition, recommender.model),
        )
        partitions.assigned(range(link.width))
        while partitions.restore():
            pass
        return Worker(
            link=link,
            partitions=partitions,
            step=Step(
                partitions,
                recommender,
                Rules(
                    settings.recommend, settings.top_k, settings.exclude, settings.keep_segments, settings.keep_formats
                ),
            ),
            serving=self._serving,
            topic=topic,
            keys=self._keys,
            doubts=Doubts(topic, KeyCheck(topic, "ignore", self._keys)),
            events=EventReader(settings.fields, settings.times),
            step_size=StepSize(budget_s=60.0, largest=_STEP, first=_STEP),
            refused=RefusedShare(settings.max_refused),
            refold=Refold(settings.refold_per_s, self._clock),
            wait_s=0.0,
            clock=self._clock,
            wall_ms=lambda: self.now_ms,
        )
