"""Stand-ins for what a step talks to: Kafka, a model and a restore, all in memory. The step itself is the real one."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgpack
import numpy as np

from state.store import StoreMemory
from stream.errors import StepAborted
from stream.partition import Partition, Phase
from stream.partitions import Partitions
from stream.policy import Cadence, RefusedShare, StepSize
from stream.ports import Outgoing
from stream.recommender import Floats, Ints, Recommender
from stream.step import Exclude, Rules, Step
from stream.wire import Header, Recommendation
from stream.worker import Worker


@dataclass(frozen=True)
class FakeRecord:
    """A consumed record."""

    _key: bytes | None
    _value: bytes | None
    _partition: int = 0
    _offset: int = 0
    _timestamp: int = 1_000
    _headers: tuple[Header, ...] = ()

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, self._timestamp

    def headers(self) -> list[Header] | None:
        return list(self._headers) or None


def said(item: int | str, ts: int) -> bytes:
    return bytes(msgpack.packb({"item": item, "ts": ts}))


@dataclass
class FakeLink:
    """Polls from a list, and keeps what was published. `refusals` transactions are aborted first."""

    records: list[FakeRecord]
    cuts: list[int]
    published: list[Outgoing] = field(default_factory=list)
    refusals: int = 0
    at: int = 0
    changelog: dict[int, list[tuple[bytes, bytes | None]]] = field(default_factory=dict)

    def poll(self, limit: int, wait_s: float) -> Sequence[FakeRecord]:
        if self.paused:
            return []  # of all partitions, or their records would no longer come in one row
        end = min([cut for cut in self.cuts if cut > self.at] + [len(self.records), self.at + limit])
        taken, self.at = self.records[self.at : end], end
        return taken

    def publish(self, outgoing: Outgoing) -> Mapping[int, int]:
        assert outgoing.next_offsets, "an empty list of offsets does not fence"
        if self.refusals:
            self.refusals -= 1
            raise StepAborted("refused by the test")
        self.published.append(outgoing)
        for partition, changes in outgoing.changes.items():
            self.changelog.setdefault(partition, []).extend(changes)
        return {partition: len(self.changelog[partition]) for partition in outgoing.changes}

    waited_at: float = -math.inf
    input_id: str = ""
    paused: set[int] = field(default_factory=set)

    def pause(self, partition: int) -> None:
        self.paused.add(partition)

    def resume(self, partition: int, position: int | None, input_id: str | None) -> int:
        """Go on from what is committed."""
        self.paused.discard(partition)
        committed: dict[int, int] = {}
        for outgoing in self.published:
            committed.update(outgoing.next_offsets)
        behind = [
            at for at, record in enumerate(self.records) if record.offset() >= committed.get(record.partition(), 0)
        ]
        self.at = min(behind, default=len(self.records))
        return committed.get(partition, 0)

    def lists(self) -> list[tuple[bytes, Recommendation | None]]:
        return [each for outgoing in self.published for each in outgoing.recommendations]

    def state(self, partition: int) -> dict[bytes, bytes]:
        """The changelog as compaction would leave it."""
        newest = dict(self.changelog.get(partition, []))
        return {key: value for key, value in newest.items() if value is not None}


@dataclass(frozen=True)
class FakeRanked:
    rows: Ints
    scores: Floats


@dataclass(frozen=True)
class FakeFolded:
    memory: Floats
    hidden: Floats


class FakeModel:
    """A model by arithmetic: memories and lists that depend on every item and on their order, exactly."""

    reference = "fake@1"
    memory_format = "fake/1"
    state_floats = 2
    uses_time = False

    def __init__(self, segment_length: int, items: int = 50) -> None:
        self.segment_length = segment_length
        self.item_ids: list[int | str] = list(range(items))
        self.oov_row = items + 1

    def fold(self, memory: Floats, rows: Ints, times: Ints | None = None) -> FakeFolded:
        state = memory.astype(np.int64)
        for column in rows.T:
            state = np.stack([(state[:, 0] * 31 + column + 1) % 9973, (state[:, 1] * 17 + state[:, 0]) % 9967], axis=1)
        return FakeFolded(state.astype(np.float32), np.concatenate([state, rows[:, -1:]], axis=1).astype(np.float32))

    def rank(self, hidden: Floats, k: int, exclude: Ints) -> FakeRanked:
        return self._ranked([int(h[0] * 7 + h[1] + h[2]) for h in hidden], k, exclude)

    def recommend(
        self,
        memory: Floats,
        rows: Ints,
        lengths: Ints,
        k: int,
        exclude: Ints,
        times: Ints | None = None,
        query_time: Ints | None = None,
    ) -> FakeRanked:
        seeds = []
        for state, items, length in zip(memory, rows, lengths, strict=True):
            seed = int(state[0] * 3 + state[1])
            for item in items[:length]:
                seed = (seed * 13 + int(item)) % 99991
            seeds.append(seed)
        return self._ranked(seeds, k, exclude)

    def _ranked(self, seeds: Sequence[int], k: int, exclude: Ints) -> FakeRanked:
        items = len(self.item_ids)
        scores = np.stack([-(((np.arange(items) * 37 + seed) % items).astype(np.float32)) for seed in seeds])
        for line, rows in zip(scores, exclude, strict=True):
            line[rows[rows > 0] - 1] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return FakeRanked(best + 1, np.take_along_axis(scores, best, axis=1))


class TimedModel(FakeModel):
    """The same by arithmetic that every time goes into."""

    uses_time = True

    def fold(self, memory: Floats, rows: Ints, times: Ints | None = None) -> FakeFolded:
        assert times is not None
        return super().fold(memory, rows * 1_009 + times)

    def recommend(
        self,
        memory: Floats,
        rows: Ints,
        lengths: Ints,
        k: int,
        exclude: Ints,
        times: Ints | None = None,
        query_time: Ints | None = None,
    ) -> FakeRanked:
        assert times is not None
        assert query_time is not None
        return super().recommend(memory, rows * 1_009 + times + query_time[:, None], lengths, k, exclude)


@contextmanager
def restoring(number: int, folder: Path, memory: StoreMemory) -> Iterator[Partition]:
    """A partition with an empty store, about to be restored."""
    made = Partition(number, cache_users=3)
    made.open(folder / str(number), memory)
    made.become(Phase.RESTORING)
    try:
        yield made
    finally:
        made.close()


class NothingToRestore:
    """A changelog that the store already agrees with."""

    def advance(self) -> bool:
        return True

    def progress(self) -> None:
        return None

    def close(self) -> None:
        pass


def worker_on(
    link: FakeLink,
    folder: Path,
    model: FakeModel,
    *,
    cadence: Cadence = "interaction",
    exclude: Exclude = "kept",
    keep_segments: int = 2,
    partitions: Iterable[int] = (0,),
    cache_users: int = 3,
    clock: Callable[[], float] | None = None,
    max_refused: float = 1.0,
    give_back: Callable[[], object] = lambda: None,
) -> Worker:
    """A worker whose partitions are running; its cache is small, so that users are read from the store too."""

    ticks = itertools.count()
    clock = clock or (lambda: next(ticks) / 100)

    def begin_restore(partition: Partition, memory: StoreMemory) -> NothingToRestore:
        return NothingToRestore()

    owned = Partitions(
        folder=folder,
        memory=StoreMemory(8 << 20),
        cache_users=cache_users,
        begin_restore=begin_restore,
        resume=link.resume,
        pause=link.pause,
    )
    owned.assigned(list(partitions))
    while owned.restore():
        pass
    return Worker(
        link=link,
        partitions=owned,
        step=Step(owned, Recommender(model), Rules(cadence, 5, exclude, keep_segments)),
        topic="interactions",
        step_size=StepSize(budget_s=1.0, largest=10_000, first=10_000),
        refused=RefusedShare(max_refused),
        wait_s=0.0,
        clock=clock,
        wall_ms=lambda: int(clock() * 1000),
        give_back=give_back,
    )


def run_to_end(worker: Worker, link: FakeLink) -> None:
    while link.at < len(link.records) or worker.partitions.running() != worker.partitions.owned():
        worker.turn()
    worker.partitions.close()
