"""Stand-ins for what a step talks to: Kafka, a model and a restore, all in memory. The step itself is the real one."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgpack
import numpy as np

from model.times import TimeRule
from state.changelog import Change
from state.store import StoreMemory
from stream.doubts import Doubts
from stream.errors import InputGap, StepAborted
from stream.event import EventReader
from stream.key_check import KeyCheck
from stream.keys import KeyFormat
from stream.partition import Partition, Phase
from stream.partitions import Partitions
from stream.policy import Cadence, RefusedShare, StepSize
from stream.ports import Empty, Outgoing
from stream.recommender import Floats, Ints, Model, Recommender
from stream.refold import Refold
from stream.serving import Served, Serving
from stream.step import Exclude, Rules, Step, check_segment_length
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


ANY_MS = EventReader(times=TimeRule("ms", earliest_ms=0))
"""Takes small times, which are easy to read in a test."""


def said(item: int | str, ts: int) -> bytes:
    return bytes(msgpack.packb({"item": item, "ts": ts}))


@dataclass
class FakeLink:
    """Kafka in memory. It passes the same contract as the real link (tests/integration/test_link_contract.py).

    `records` is the input topic. Polls go through this one list, whatever partition a record is in. A poll ends before
    each index in `cuts`, so a test decides which records come together. Partitions never move to another worker.
    """

    records: list[FakeRecord]
    cuts: list[int]
    refusals: int = 0
    """How many publications are refused before one is accepted."""
    input_id: str = "fake-input"
    width: int = 1
    waited_at: float = -math.inf
    first_kept: dict[int, int] = field(default_factory=dict)
    """Partition → its first offset: older records were deleted. 0 where not given."""
    by_hand: dict[int, int] = field(default_factory=dict)
    """Partition → the offset that an operator committed. The next publication replaces it."""
    committed: dict[int, int] = field(default_factory=dict)
    """Partition → the offset that the last publication committed."""
    published: list[Outgoing] = field(default_factory=list)
    changelog: dict[int, list[Change]] = field(default_factory=dict)
    """Partition → its records; the index is the offset."""
    log_end: dict[int, int] = field(default_factory=dict)
    """Partition → its end, where markers, aborted or compacted records follow the last record that can be read."""
    _look: dict[int, Empty] | None = field(default=None, init=False)
    _next: dict[int, int] = field(default_factory=dict, init=False)
    """Resumed partition → the index in `records` from which its next record is looked for."""
    _paused: set[int] = field(default_factory=set, init=False)

    def poll(self, limit: int, wait_s: float) -> Sequence[FakeRecord]:
        running = {number: at for number, at in self._next.items() if number not in self._paused}
        cuts = set(self.cuts)
        polled: list[FakeRecord] = []
        for at in range(min(running.values(), default=len(self.records)), len(self.records)):
            if len(polled) == limit or (polled and at in cuts):
                break
            number = self.records[at].partition()
            if at >= running.get(number, len(self.records)):
                polled.append(self.records[at])
                self._next[number] = at + 1
        return polled

    def look_for_ends(self, positions: Mapping[int, int]) -> None:
        last = {record.partition(): record.offset() for record in self.records}
        self._look = {
            number: Empty(offset, self._end_of(number))
            for number, offset in positions.items()
            if last.get(number, -1) < offset < self._end_of(number)
        }

    def found_empty(self) -> Mapping[int, Empty] | None:
        found, self._look = self._look, None
        return found

    @property
    def looking(self) -> bool:
        return self._look is not None

    def _end_of(self, partition: int) -> int:
        last = max((record.offset() for record in self.records if record.partition() == partition), default=-1)
        return max(last + 1, self.first_kept.get(partition, 0), self.log_end.get(partition, 0))

    def drained(self) -> bool:
        """Whether polls have brought all records of the partitions that were resumed, paused ones included."""
        left = len(self.records)
        return not any(at >= self._next.get(record.partition(), left) for at, record in enumerate(self.records))

    def publish(self, outgoing: Outgoing) -> Mapping[int, int]:
        assert outgoing.next_offsets, "Kafka fences by the offsets of a transaction: without any it fences nobody"
        if self.refusals:
            self.refusals -= 1
            raise StepAborted("refused by the test")
        self.published.append(outgoing)
        for partition, next_offset in outgoing.next_offsets.items():
            self.by_hand.pop(partition, None)
            self.committed[partition] = next_offset
        reached = {}
        for partition, changes in outgoing.changes.items():
            if changes:
                self.changelog.setdefault(partition, []).extend(changes)
                reached[partition] = len(self.changelog[partition])
        return reached

    def pause(self, partition: int) -> None:
        self._paused.add(partition)

    def resume(self, partition: int, position: int | None, input_id: str | None) -> int:
        """Begin at the operator's offset, else at the state's position, else at the committed offset, else at the
        first record.
        """
        by_hand = self.by_hand.get(partition)
        if by_hand is None and input_id not in (None, "", self.input_id):
            raise InputGap(f"the state was made from topic {input_id}, and this is topic {self.input_id}")
        mine = [(record.offset(), at) for at, record in enumerate(self.records) if record.partition() == partition]
        first = self.first_kept.get(partition, 0)
        end = self._end_of(partition)
        choices = (by_hand, position, self.committed.get(partition), first)
        start = next(offset for offset in choices if offset is not None)
        if not first <= start <= end:
            raise InputGap(f"offset {start} is not in partition {partition}, which has {first} to {end}")
        self._next[partition] = min((at for offset, at in mine if offset >= start), default=len(self.records))
        self._paused.discard(partition)
        return start

    @property
    def ends(self) -> dict[int, int]:
        return {record.partition(): record.offset() + 1 for record in self.records}

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
    """A model by arithmetic: memories and lists that depend on every item and on their order, exactly.

    It passes the same contract as a real model version (tests/stream/test_model_contract.py).
    """

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
        seeds = [self._seeds(state, items)[length] for state, items, length in zip(memory, rows, lengths, strict=True)]
        return self._ranked(seeds, k, exclude)

    def longest_prefix(self, memory: Floats) -> Ints:
        return np.full(len(memory), 0 if self.uses_time else self.segment_length)

    def encode_prefixes(self, memory: Floats, rows: Ints, lengths: Ints) -> Floats:
        hidden = np.zeros((*rows.shape, 3), np.float32)
        for line, state, items, length in zip(hidden, memory, rows, lengths, strict=True):
            line[:length, 1] = self._seeds(state, items[:length])[1:]  # `rank` takes the second number as it is
        return hidden

    def _seeds(self, state: Floats, items: Ints) -> list[int]:
        """What lists go by, after none of the items, after the first, …"""
        seeds = [int(state[0] * 3 + state[1])]
        for item in items:
            seeds.append((seeds[-1] * 13 + int(item)) % 99991)
        return seeds

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
    model: Model,
    *,
    cadence: Cadence = "interaction",
    exclude: Exclude = "kept",
    keep_segments: int = 2,
    partitions: Iterable[int] = (0,),
    cache_users: int = 3,
    clock: Callable[[], float] | None = None,
    max_refused: float = 1.0,
    keys: KeyFormat | None = None,
    key_check: KeyCheck | None = None,
    give_back: Callable[[], object] = lambda: None,
    events: EventReader = ANY_MS,
    serving: Serving | None = None,
    keep_formats: int = 1,
    refold_per_s: int = 0,
) -> Worker:
    """A worker whose partitions are running; its cache is small, so that users are read from the store too."""
    recommender = Recommender(model)

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
        check=lambda partition: check_segment_length(partition, model),
    )
    owned.assigned(list(partitions))
    while owned.restore():
        pass
    return Worker(
        link=link,
        partitions=owned,
        serving=serving or Serving(Served(recommender, "0" * 64, "configured")),
        step=Step(owned, recommender, Rules(cadence, 5, exclude, keep_segments, keep_formats)),
        topic="interactions",
        keys=keys or KeyFormat(),
        doubts=Doubts("interactions", key_check or KeyCheck("interactions", "ignore")),
        events=events,
        step_size=StepSize(budget_s=1.0, largest=10_000, first=10_000),
        refused=RefusedShare(max_refused),
        refold=Refold(refold_per_s, clock),
        wait_s=0.0,
        clock=clock,
        wall_ms=lambda: int(clock() * 1000),
        give_back=give_back,
    )


def run_to_end(worker: Worker, link: FakeLink) -> None:
    while not link.drained() or worker.partitions.running() != worker.partitions.owned():
        worker.turn()
    worker.partitions.close()
