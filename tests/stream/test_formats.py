"""Memory formats under a swap: every list and every state is what the log, and the versions that served, say.

The reference here knows neither steps nor stores. It computes one user after the other, one interaction at a time.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.codec import (
    MARK,
    Mark,
    read_mark,
    read_user,
    user_prefix,
)
from state.store import Store, StoreMemory
from state.user import User
from stream.policy import Cadence
from stream.recommender import Floats, Ints, Recommender
from stream.state_rows import Row, rows
from stream.wire import Recommendation
from stream.worker import Worker
from tests.fakes import FakeFolded, FakeLink, FakeModel, FakeRecord, TimedModel, said, worker_on

SEGMENT = 3
K = 5
USERS = [b"ann", b"bob"]


class Other(FakeModel):
    """Another format, of another size."""

    reference, memory_format, state_floats = "other@1", "other/1", 3

    def fold(self, memory: Floats, rows: Ints, times: Ints | None = None) -> FakeFolded:
        folded = super().fold(memory[:, :2], rows * 3 + 1)
        count = memory[:, 2:] + 1
        return FakeFolded(np.concatenate([folded.memory, count], axis=1).astype(np.float32), folded.hidden)


class Timed(TimedModel):
    reference, memory_format = "timed@1", "timed/1"


class Next(FakeModel):
    """Another version of the same format."""

    reference = "fake@2"


MODELS = {each.reference: each(SEGMENT) for each in (FakeModel, Next, Other, Timed)}


@dataclass
class Memory:
    state: Floats
    folds: int
    missing: int


@dataclass
class Expected:
    """One user, by the log."""

    keep_segments: int
    keep_formats: int
    items: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    timed: list[bool] = field(default_factory=list)
    """Of each folded segment: whether its times are kept."""
    memories: dict[str, Memory] = field(default_factory=dict)
    """By format, the one that folded last first."""

    @property
    def folds(self) -> int:
        return len(self.items) // SEGMENT

    def segment(self, model: FakeModel, number: int) -> tuple[Ints, list[int]]:
        part = slice(number * SEGMENT, (number + 1) * SEGMENT)
        return np.array([rows_of(model, self.items[part])]), self.times[part]

    def read(self, model: FakeModel, folds: int) -> Memory:
        """The memory of the first `folds` segments as the model finds it; older kept segments are those before them."""
        found = self.memories.get(model.memory_format)
        memory = found or Memory(np.zeros((1, model.state_floats), np.float32), 0, 0)
        newest = self.times[folds * SEGMENT - 1] if folds else 0
        state, missing = memory.state, memory.missing
        for number in range(memory.folds, folds):
            if number < folds - self.keep_segments:
                missing += 1
            else:
                items, times = self.segment(model, number)
                when = times if self.timed[number] else [newest] * SEGMENT
                state = model.fold(state, items, np.array([when])).memory
        return Memory(state, folds, missing)

    def take(self, model: FakeModel, item: int, time: int) -> FakeFolded | None:
        """Remember one interaction; what a fold gave, if it completed a segment."""
        self.items.append(item)
        self.times.append(time)
        if len(self.items) % SEGMENT:
            return None
        before = self.read(model, self.folds - 1)
        items, times = self.segment(model, self.folds - 1)
        folded = model.fold(before.state, items, np.array([times]))
        self.timed.append(model.uses_time)
        others = {name: each for name, each in self.memories.items() if name != model.memory_format}
        new = {model.memory_format: Memory(folded.memory, self.folds, before.missing), **others}
        self.memories = dict(list(new.items())[: 1 + self.keep_formats])
        return folded

    def list_after(self, model: FakeModel, folded: FakeFolded | None) -> dict[str, Any]:
        """The list after the newest interaction."""
        start = self.folds * SEGMENT
        working, times = rows_of(model, self.items[start:]), self.times[start:]
        state = self.read(model, self.folds).state
        kept = self.items[max(0, self.folds - self.keep_segments) * SEGMENT :]
        exclude = np.array([[0, *(row for row in rows_of(model, kept) if row != model.oov_row)]])
        known = any(row != model.oov_row for row in working)
        source = "memory" if folded or state.any() else "working" if known else "popular"
        if folded:
            made = model.rank(folded.hidden, K, exclude)
        else:
            given = working if source != "popular" else []
            made = model.recommend(
                state,
                np.array([given], np.int64).reshape(1, -1),
                np.array([len(given)]),
                K,
                exclude,
                np.array([times[: len(given)]]),
                np.array([self.times[-1]]),
            )
        return {
            "items": (made.rows[0] - 1).tolist(),
            "scores": made.scores[0].tolist(),
            "taken": len(self.items),
            "folds": self.folds,
            "model": model.reference,
            "source": source,
        }


def rows_of(model: FakeModel, items: Sequence[int]) -> list[int]:
    return [item + 1 if item < len(model.item_ids) else model.oov_row for item in items]


def told(made: Recommendation) -> dict[str, Any]:
    names = ("items", "scores", "taken", "folds", "model", "source")
    return {name: getattr(made, name) for name in names}


@dataclass(frozen=True)
class Chapter:
    """What a version serves: some interactions (user, item or None: forget), and what happens around them."""

    model: str
    happened: list[tuple[bytes, int | None]]
    background: int = 0
    """Turns without records before them."""
    restored: bool = False
    """A new worker begins with it, without a disk."""
    aborts: int = 0
    """Transactions that are refused from its beginning on."""


def interactions(count: int, seed: int) -> list[tuple[bytes, int | None]]:
    """Enough for folds: hypothesis alone makes short lists."""
    at_random = random.Random(seed)
    return [
        (at_random.choice(USERS), None if at_random.random() < 0.03 else at_random.randrange(60)) for _ in range(count)
    ]


chapters = st.lists(
    st.builds(
        Chapter,
        st.sampled_from(sorted(MODELS)),
        st.builds(interactions, st.integers(0, 40), st.integers(0, 2**32)),
        st.integers(0, 12),
        st.booleans(),
        st.integers(0, 2),
    ),
    min_size=2,
    max_size=7,
)


class Played:
    """Chapters, as a worker lives them."""

    def __init__(
        self,
        chapters: Sequence[Chapter],
        *,
        cadence: Cadence = 1,
        keep_segments: int = 2,
        keep_formats: int = 1,
        refold_per_s: int = 0,
        cut: int = 4,
    ) -> None:
        self.link = FakeLink([], [])
        self.expected: dict[int, tuple[bytes, dict[str, Any]]] = {}
        self.users: dict[bytes, Expected] = {}
        now = 0
        with TemporaryDirectory() as folder:
            worker: Worker | None = None
            for at, chapter in enumerate(chapters):
                model = MODELS[chapter.model]
                if worker is None or chapter.restored:
                    if worker is not None:
                        worker.partitions.close()
                    here = Path(folder) / str(at)
                    self.restored(here)
                    worker = worker_on(
                        self.link,
                        here,
                        model,
                        cadence=cadence,
                        keep_segments=keep_segments,
                        keep_formats=keep_formats,
                        refold_per_s=refold_per_s,
                    )
                worker.step = replace(worker.step, recommender=Recommender(model, f"promotion-{at}"))
                self.link.refusals = chapter.aborts
                for _ in range(chapter.background):
                    worker.turn()
                for which, (user, item) in enumerate(chapter.happened):
                    now += 10
                    offset = len(self.link.records)
                    value = None if item is None else said(item, now)
                    self.link.records.append(FakeRecord(user, value, 0, offset))
                    if which % cut == 0:
                        self.link.cuts.append(offset)
                    if item is None:
                        self.users.pop(user, None)
                        continue
                    mine = self.users.setdefault(user, Expected(keep_segments, keep_formats))
                    folded = mine.take(model, item, now)
                    if folded or cadence != "fold":
                        self.expected[offset] = (user, mine.list_after(model, folded))
                while not self.link.drained() or worker.partitions.running() != [0]:
                    worker.turn()
            assert worker is not None
            self.worker = worker
            self.partition_records = sorted(self.link.state(0).items())
            worker.partitions.close()

    def restored(self, folder: Path) -> None:
        """The store of a worker whose disk was empty."""
        store = Store(folder / "0", StoreMemory(8 << 20))
        store.write(self.link.state(0).items(), len(self.link.changelog.get(0, [])))
        store.close()

    def rows(self) -> dict[bytes, Row]:
        return {row.user_id.encode(): row for row in rows(iter(self.partition_records), 0)}

    def user(self, user: bytes) -> User:
        prefix = user_prefix(user)
        mine = [(key[len(prefix) :], value) for key, value in self.partition_records if key.startswith(prefix)]
        return read_user([(rest, value) for rest, value in mine if rest[:1] != b"\x03"])

    def marks(self) -> list[Mark]:
        return [read_mark(value) for key, value in self.partition_records if key.startswith(MARK)]


@settings(max_examples=25, deadline=None)
@given(
    chapters,
    st.sampled_from([1, "fold", "interaction"]),
    st.integers(0, 5),
    st.integers(0, 2),
    st.sampled_from([0, 10, 10_000]),
    st.integers(1, 9),
)
def test_lists_and_states_are_what_the_log_and_the_versions_that_served_say(
    played: list[Chapter], cadence: Cadence, keep_segments: int, keep_formats: int, refold_per_s: int, cut: int
) -> None:
    """With the background, without it, and with half of it; with aborts, and workers that begin without a disk."""
    agree(played, cadence, keep_segments, keep_formats, refold_per_s, cut)


def agree(
    played: list[Chapter], cadence: Cadence, keep_segments: int, keep_formats: int, refold_per_s: int, cut: int
) -> None:
    found = Played(
        played,
        cadence=cadence,
        keep_segments=keep_segments,
        keep_formats=keep_formats,
        refold_per_s=refold_per_s,
        cut=cut,
    )
    made = {each.offset: (user, told(each)) for user, each in found.link.lists() if each is not None}
    assert made == {
        offset: each for offset, each in found.expected.items() if offset in made or cadence != "interaction"
    }
    shown = found.rows()
    assert shown.keys() == found.users.keys()
    for user, expected in found.users.items():
        state, row = found.user(user), shown[user]
        assert (row.taken, row.folds) == (len(expected.items), expected.folds)
        assert row.taken == row.folds * SEGMENT + len(row.working_items)
        assert row.working_items == [str(item) for item in expected.items[expected.folds * SEGMENT :]]
        memories = [each for each in (state.preference, *state.earlier) if each is not None]
        assert [
            (each.memory_format, np.frombuffer(each.memory, np.float32).tolist(), each.folds, each.missing)
            for each in memories
        ] == [(name, each.state[0].tolist(), each.folds, each.missing) for name, each in expected.memories.items()]
        if state.prepared is not None:
            reader = next(each for each in MODELS.values() if each.memory_format == state.prepared.memory_format)
            ready = expected.read(reader, expected.folds)
            assert np.frombuffer(state.prepared.memory, np.float32).tolist() == ready.state[0].tolist()
            assert (state.prepared.folds, state.prepared.missing) == (ready.folds, ready.missing)


def several(user: bytes, first: int, count: int) -> list[tuple[bytes, int | None]]:
    return [(user, item) for item in range(first, first + count)]


def test_a_cached_user_has_the_memory_that_the_background_prepared() -> None:
    """Else the fold that comes right after it would leave the prepared memory behind."""
    found = Played(
        [
            Chapter("fake@1", several(b"ann", 0, 2 * SEGMENT - 1)),
            Chapter("other@1", several(b"ann", 9, 1), background=9),
        ],
        cadence="interaction",
        refold_per_s=10_000,
    )
    assert (found.worker.counts.refolded, found.worker.counts.rebuilt) == (1, 1)
    state = found.user(b"ann")
    assert state.preference is not None
    assert (state.preference.memory_format, state.prepared) == ("other/1", None)


@pytest.mark.parametrize("keep_formats", [0, 1])
def test_a_format_that_served_without_folding_leaves_the_memory_before_it_in_place(keep_formats: int) -> None:
    found = Played(
        [
            Chapter("fake@1", several(b"ann", 0, 4 * SEGMENT)),
            Chapter("other@1", several(b"ann", 30, 1), background=9),
            Chapter("fake@1", several(b"ann", 31, 2 * SEGMENT)),
        ],
        keep_segments=0,
        keep_formats=keep_formats,
        refold_per_s=10_000,
    )
    assert found.rows()[b"ann"].missing_segments == 0


def test_a_rollback_folds_what_it_missed_and_says_what_it_lacks() -> None:
    played = [
        Chapter("fake@1", several(b"ann", 0, 2 * SEGMENT)),
        Chapter("other@1", several(b"ann", 10, 3 * SEGMENT)),
        Chapter("fake@2", several(b"ann", 30, 1)),
    ]
    for keep_segments, missing in [(3, 0), (2, 1), (0, 3)]:
        assert Played(played, keep_segments=keep_segments).rows()[b"ann"].missing_segments == missing
    assert Played(played, keep_segments=3, keep_formats=0).rows()[b"ann"].missing_segments == 2
    whole = Played([Chapter("fake@1", [each for chapter in played for each in chapter.happened])])
    assert Played(played, keep_segments=3).rows()[b"ann"].memory == whole.rows()[b"ann"].memory


@settings(max_examples=8, deadline=None)
@given(chapters, st.sampled_from([0, 10_000]))
def test_a_partition_marks_from_which_offset_on_each_version_served(played: list[Chapter], refold_per_s: int) -> None:
    found = Played(played, refold_per_s=refold_per_s)
    expected, offset = [], 0
    for at, chapter in enumerate(played):
        if chapter.happened:
            expected.append((chapter.model, f"promotion-{at}", MODELS[chapter.model].memory_format, offset))
        offset += len(chapter.happened)
    assert [(each.version, each.promotion, each.memory_format, each.offset) for each in found.marks()] == expected


def test_a_version_that_serves_on_under_another_promotion_is_marked_again_and_no_step_without_records_is() -> None:
    link = FakeLink([FakeRecord(b"ann", said(1, 1))], [], log_end={0: 9})
    with TemporaryDirectory() as folder:
        seconds = itertools.count()
        worker = worker_on(link, Path(folder), MODELS["fake@1"], clock=lambda: float(next(seconds)))
        worker.turn()
        for promotion, offset in (("one", 9), ("one", 10), ("two", 11)):
            worker.step = replace(worker.step, recommender=Recommender(MODELS["fake@1"], promotion))
            for _ in range(4):
                worker.turn()  # passes what is no record: positions move
            link.records.append(FakeRecord(b"ann", said(1, 1), 0, offset))
            worker.turn()
        worker.partitions.close()
    marks = [read_mark(value) for key, value in sorted(link.state(0).items()) if key.startswith(MARK)]
    assert [(each.promotion, each.offset) for each in marks] == [("", 0), ("one", 9), ("two", 11)]
