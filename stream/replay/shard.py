"""One shard through the step of a worker, from its first interaction to its last.

    feed → Step.compute → score → frames → store

A list predicts the interactions of its user until the next list. They are scored when the list is made: the step has no
way to see them, and nothing must be remembered of a list afterwards.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from model.version.runtime import Runtime
from state.store import StoreMemory, wipe
from stream.model_cost import ModelCost
from stream.partition import Partition
from stream.policy import stride
from stream.ports import Outgoing
from stream.replay.computed import computed
from stream.replay.feed import Feed, borders
from stream.replay.frames import Frame, Frames
from stream.replay.newest_items import lists_of_newest_items
from stream.replay.task import Serves, Task
from stream.replay.timed import TimedRecommender
from stream.step import Rules, Step
from stream.wire import Recommendation

STATE: Final = "state"
FRAMES: Final = "frames"
_FLUSH_EVERY_S: Final = 20.0
"""What a kill makes a shard compute again, at most."""

SCORED: Final[dict[str, Any]] = {
    "offset": pl.Int64(),
    "rank": pl.Int16(),
    "known": pl.Boolean(),
    "source": pl.String(),
    "folds": pl.Int32(),
    "since_fold": pl.Int32(),
    "leak": pl.Boolean(),
    "version": pl.String(),
}
LISTS: Final[dict[str, Any]] = {
    "user_id": pl.String(),
    "items": pl.List(pl.String()),
    "scores": pl.List(pl.Float32()),
    "as_of": pl.Int64(),
    "partition": pl.Int32(),
    "offset": pl.Int64(),
    "taken": pl.Int64(),
    "folds": pl.Int64(),
    "model": pl.String(),
    "source": pl.String(),
}


@dataclass(frozen=True, slots=True)
class _TimedStep(Step):
    recommender: TimedRecommender


@dataclass(slots=True)
class Shard:
    """One shard while it is replayed."""

    task: Task
    feed: Feed
    partition: Partition
    frames: Frames
    cost: ModelCost = field(default_factory=ModelCost)

    @staticmethod
    def open(task: Task) -> "Shard":
        """Open a shard where an earlier process left it."""
        out = Path(task.out)
        out.mkdir(parents=True, exist_ok=True)
        partition, frames = Partition(task.partition, task.cache_users), Frames(out / FRAMES)
        feed = Feed.read(Path(task.shard), task.partition)
        if not frames.there:
            wipe(out / STATE)
        partition.open(out / STATE, StoreMemory(task.store_bytes))
        # Without a memory nothing is stored: the frames alone say how far the shard is.
        reached = partition.store.position() if task.memory else frames.reaches()
        frames.keep(-1 if reached is None else reached)
        partition.next_offset = int(feed.offsets[0]) if reached is None else reached
        return Shard(task, feed, partition, frames)

    def run(self, heard: Callable[[int], None]) -> None:
        """Replay what is left. `heard` is called with the number of interactions after each step."""
        feed = self.feed
        starts = [max(feed.at(each.from_offset), _first_from(feed, each.from_ms)) for each in self.task.serves]
        begin = feed.at(self.partition.next_offset)
        heard(begin)
        flushed = time.monotonic()
        serving: tuple[int, _TimedStep] | None = None
        for start, end in borders(feed, self.task.chunk, starts):
            if start < begin:
                continue
            number = max(at for at, first in enumerate(starts) if first <= start or at == 0)
            if serving is None or serving[0] != number:
                serving = number, self._step(self.task.serves[number])
            self._piece(serving[1], start, end)
            heard(end - start)
            if time.monotonic() - flushed > _FLUSH_EVERY_S:
                self.partition.store.flush()
                flushed = time.monotonic()
        self.partition.store.flush()

    def _step(self, serves: Serves) -> "_TimedStep":
        task = self.task
        # A worker's list after a step is that of its newest interaction. Here every interaction has its own.
        cadence = 1 if task.cadence == "interaction" else task.cadence
        runtime = _loaded(serves.folder, serves.sha256)
        return _TimedStep(
            {task.partition: self.partition},
            TimedRecommender(runtime, serves.promotion, self.cost),
            Rules(cadence, task.depth, task.exclude, task.keep_segments, task.keep_formats),
        )

    def _piece(self, step: "_TimedStep", start: int, end: int) -> None:
        began, before = time.perf_counter(), replace(self.cost)
        number, failed = self.partition.number, 0
        outgoing: Outgoing | None = None
        if self.task.memory:
            now_ms = int(self.feed.times[end - 1])
            outgoing, failing = computed(step, lambda without: self.feed.polled(start, end, without), now_ms)
            failed = len(failing)
            lists = [(user, each) for user, each in outgoing.recommendations if each is not None]
        else:
            lists = lists_of_newest_items(self.feed, step.recommender, step.rules, start, end)
        tables = {"scored": self._scored(step, lists), "lists": self._listed(lists)}
        reaches = int(self.feed.offsets[end - 1]) + 1
        figures = {
            "interactions": end - start,
            "failed": failed,
            "seconds": time.perf_counter() - began,
            **self.cost.since(before),
        }
        self.frames.append(Frame(reaches, tables, figures))
        if outgoing is not None:
            self.partition.store.write(outgoing.changes[number], None)
            self.partition.learn(outgoing.learned[number])
        self.partition.next_offset = reaches

    def _scored(self, step: "_TimedStep", lists: Sequence[tuple[bytes, Recommendation]]) -> pl.DataFrame:
        """The rank of each interaction in the list that its user had then."""
        feed, recommender = self.feed, step.recommender
        model, length = recommender.model, recommender.model.segment_length
        owners, targets = feed.following([made.offset for _, made in lists], stride(step.rules.cadence, length))
        rows = recommender.rows(feed.items[targets].tobytes())
        known, ids = rows != model.oov_row, model.item_ids
        made_by = [lists[owner][1] for owner in owners.tolist()]
        until = recommender.trained_until_ms
        leak = np.zeros(len(targets), bool) if until is None else feed.times[targets] <= until
        return pl.DataFrame(
            {
                "offset": feed.offsets[targets],
                "rank": [
                    _rank(made.items, ids[row - 1]) if in_catalogue else 0
                    for made, row, in_catalogue in zip(made_by, rows.tolist(), known.tolist(), strict=True)
                ],
                "known": known,
                "source": [made.source for made in made_by],
                "folds": [made.folds for made in made_by],
                "since_fold": [made.taken - made.folds * length for made in made_by],
                "leak": leak,
                "version": [model.reference] * len(made_by),
            },
            SCORED,
        )

    def _listed(self, lists: Sequence[tuple[bytes, Recommendation]]) -> pl.DataFrame:
        k, made = self.task.top_k, [each for _, each in lists]
        return pl.DataFrame(
            {
                "user_id": [user.decode() for user, _ in lists],
                "items": _nested([[str(item) for item in each.items[:k]] for each in made], pl.String()),
                "scores": _nested([each.scores[:k] for each in made], pl.Float32()),
                "as_of": [each.as_of for each in made],
                "partition": [each.partition for each in made],
                "offset": [each.offset for each in made],
                "taken": [each.taken for each in made],
                "folds": [each.folds for each in made],
                "model": [each.model for each in made],
                "source": [each.source for each in made],
            },
            LISTS,
        ).sort("offset")

    def close(self) -> None:
        self.partition.close()


@lru_cache(4)
def _loaded(folder: str, sha256: str) -> Runtime:
    """A version, loaded. A process replays one shard after the other."""
    return Runtime.load(folder, sha256)


def _nested(lists: Sequence[Sequence[Any]], inner: pl.DataType) -> pl.Series:
    """A column of lists. Lists of one length, as nearly all are, are made from one flat column, which is quick."""
    lengths = {len(each) for each in lists}
    if len(lengths) == 1 and (length := lengths.pop()):
        flat = pl.Series([value for each in lists for value in each], dtype=inner)
        return flat.reshape((len(lists), length)).cast(pl.List(inner))
    return pl.Series(lists, dtype=pl.List(inner))


def _rank(items: Sequence[Any], item: Any) -> int:
    try:
        return items.index(item) + 1
    except ValueError:
        return 0


def _first_from(feed: Feed, from_ms: int) -> int:
    """The first interaction that happened at this time or later. The log of a topic may not be in the order of time."""
    later = feed.times >= from_ms
    return int(later.argmax()) if later.any() else len(feed)
