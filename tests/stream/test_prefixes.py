"""Lists that are asked for together share passes of the model, and are those that each would be alone."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.version.runtime import Ranked, Runtime
from state.interaction import item_key
from state.user import packed
from stream.prefixes import prefix_chains
from stream.recommender import Floats, Ints, Query, Recommender
from tests.fakes import FakeLink, FakeModel, FakeRecord, run_to_end, said, worker_on
from tests.model import tiny
from tests.same_lists import list_difference

L = tiny.L
UNKNOWN = tiny.V + 1
KINDS = [
    ("rec2pm-o", "overlap"),
    ("rec2pm-a", "sasrec"),
    ("kv-mask-o", "hstu"),
    ("full", "sasrec"),
    ("full", "pos_time"),
    ("trunc", "meta"),
    ("holomambarec", "none"),
]


class Counted(Runtime):
    """A version, and how many lists came from prefixes and from passes of their own."""

    shared = alone = 0

    def rank(self, hidden: Floats, k: int, exclude: Ints) -> Ranked:
        self.shared += len(hidden)
        return super().rank(hidden, k, exclude)

    def recommend(self, memory: Floats, rows: Ints, *given: Any) -> Ranked:
        self.alone += len(rows)
        return super().recommend(memory, rows, *given)


class Alone(Runtime):
    """A version that shares no pass."""

    def longest_prefix(self, memory: Floats) -> Ints:
        return np.zeros(len(memory), np.int64)


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Counted:
    version = tiny.add(tmp_path_factory.mktemp("models"), config=tiny.config(*request.param))
    return Counted(Runtime.load(version.uri).artifact)


def keys(rows: Sequence[int]) -> list[int]:
    return [item_key(f"item-{row}") for row in rows]


def same(found: Any, expected: Any) -> None:
    facts = {"taken": 0, "folds": 0, "model": "", "as_of": 0}
    one, other = ({**msgspec.structs.asdict(each), **facts} for each in (found, expected))
    assert list_difference(one, other) is None


words = st.lists(st.integers(0, 2), max_size=5)


@given(st.lists(st.tuples(st.sampled_from([b"", b"one", b"two"]), words), max_size=30))
def test_a_chain_is_what_one_pass_can_give(asked: list[tuple[bytes, list[int]]]) -> None:
    memories, items = [memory for memory, _ in asked], [packed(word) for _, word in asked]
    chains = prefix_chains(memories, items)
    found = [at for chain in chains for at in chain]
    assert len(set(found)) == len(found)
    for chain in chains:
        assert len(chain) > 1
        for before, after in itertools.pairwise(chain):
            assert memories[before] == memories[after]
            assert items[after].startswith(items[before])
    # Whoever is alone is no prefix of another who is.
    assert all(items[at] for at in found)
    rest = [at for at in range(len(asked)) if items[at] and at not in set(found)]
    for at in rest:
        assert not any(
            memories[at] == memories[other] and items[other].startswith(items[at]) for other in rest if other != at
        )


@given(st.data(), st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=12), min_size=1, max_size=6))
def test_all_prefixes_of_a_user_are_one_chain_in_whatever_order_they_come(
    data: st.DataObject, runs: list[list[int]]
) -> None:
    asked = data.draw(st.permutations([(user, end) for user, run in enumerate(runs) for end in range(1, len(run) + 1)]))
    chains = prefix_chains([bytes([user]) for user, _ in asked], [packed(runs[user][:end]) for user, end in asked])
    assert sorted(len(chain) for chain in chains) == sorted(map(len, runs))


@settings(max_examples=15, deadline=None)
@given(
    st.data(),
    st.lists(
        st.tuples(
            st.integers(0, 5), st.lists(st.one_of(st.just(UNKNOWN), st.integers(1, UNKNOWN)), min_size=1, max_size=L)
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_lists_are_the_same_with_and_without_sharing(
    runtime: Counted, data: st.DataObject, users: list[tuple[int, list[int]]]
) -> None:
    """Users after any number of folds: of a window of items, the whole, a part or nothing is free."""
    recommender, queries = Recommender(runtime), []
    for number, (folds, working) in enumerate(users):
        memory = None
        for segment in tiny.rows(folds, L, seed=number).tolist():
            memory = recommender.fold([memory], [packed(keys(segment))], [1_000])[0].preference
        for end in range(len(working) + 1):
            items = packed(keys(working[:end]))
            times = packed([2_000 + at for at in range(end)]) if runtime.uses_time else b""
            exclude = packed(keys(working[: end // 2]))
            queries.append(Query(memory, items, exclude, None, times, 2_000 + end))
    queries = data.draw(st.permutations(queries))
    runtime.shared = runtime.alone = 0
    together = recommender.recommend(queries, 5)
    assert runtime.shared + runtime.alone == len(queries)
    longest = {} if runtime.uses_time else _most_shared(runtime, users)
    assert runtime.shared >= sum(longest.values())
    alone = Recommender(Alone(runtime.artifact)).recommend(queries, 5)
    for found, expected in zip(together, alone, strict=True):
        same(found, expected)


def _most_shared(runtime: Runtime, users: Sequence[tuple[int, list[int]]]) -> dict[int, int]:
    """How many lists of a user must come from one pass."""
    kind = runtime.manifest.kind
    found = {}
    for number, (folds, working) in enumerate(users):
        free = {"full": 4 * L - folds * L, "trunc": L - folds * L}.get(kind, L)
        known = len(working) if folds else sum(1 for end in range(len(working)) if min(working[: end + 1]) < UNKNOWN)
        fitting = max(0, min(free - (len(working) - known), known))
        found[number] = fitting if fitting > 1 else 0
    return found


@settings(max_examples=4, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([b"ann", b"bob"]), st.integers(0, UNKNOWN)), min_size=30, max_size=60))
def test_a_worker_that_catches_up_makes_the_lists_of_one_that_keeps_up(
    runtime: Counted, happened: list[tuple[bytes, int]]
) -> None:
    records = [FakeRecord(user, said(f"item-{row}", 1_000 + at), 0, at) for at, (user, row) in enumerate(happened)]
    caught_up, kept_up = (lists_of(runtime, records, cuts) for cuts in ([], range(len(records))))
    assert caught_up.keys() == kept_up.keys() == set(range(len(records)))
    for offset, expected in kept_up.items():
        assert list_difference(expected, caught_up[offset]) is None


def lists_of(runtime: Counted, records: list[FakeRecord], cuts: Sequence[int]) -> dict[int, dict[str, Any]]:
    with TemporaryDirectory() as folder:
        link = FakeLink(records, list(cuts))
        run_to_end(worker_on(link, Path(folder), runtime, cadence=1), link)
        return {made.offset: msgspec.structs.asdict(made) for _, made in link.lists() if made}


def test_a_program_of_an_earlier_build_gives_a_list_for_each_pass(runtime: Counted) -> None:
    class Earlier:
        def __getattr__(self, name: str) -> Any:
            if name in ("encode_prefixes", "longest_prefix"):
                raise AttributeError(name)
            return getattr(runtime._program, name)

    earlier = Counted(dataclasses.replace(runtime.artifact, program=Earlier()))
    rows = tiny.rows(1, 6, seed=3)[0].tolist()
    times = [packed(range(end)) if runtime.uses_time else b"" for end in range(1, 7)]
    queries = [Query(None, packed(keys(rows[:end])), b"", None, times[end - 1], end) for end in range(1, 7)]
    found = Recommender(earlier).recommend(queries, 5)
    assert (earlier.shared, earlier.alone) == (0, 6)
    for one, other in zip(found, Recommender(runtime).recommend(queries, 5), strict=True):
        same(one, other)


def test_lists_that_share_a_pass_say_what_they_go_by_and_leave_out_what_each_of_them_must() -> None:
    """Unknown items first; then several segments within one step, whose kept segments are others after each fold."""
    model = FakeModel(4, 20)
    recommender, worked = Recommender(model), [25, 26, 3, 4]
    queries = [Query(None, packed(worked[:end]), b"", None, b"", 0) for end in range(1, 5)]
    together = recommender.recommend(queries, 5)
    assert [made.source for made in together] == ["popular", "popular", "working", "working"]
    assert together == [recommender.recommend([query], 5)[0] for query in queries]
    records = [FakeRecord(b"ann", said(at, 1_000 + at), 0, at) for at in range(16)]
    with TemporaryDirectory() as folder:
        link = FakeLink(records, [])
        run_to_end(worker_on(link, Path(folder), model, cadence=1, keep_segments=2), link)
        lists = {made.offset: made.items for _, made in link.lists() if made}
    assert len(lists) == 16
    for offset, items in lists.items():
        left_out = set(range(max(0, ((offset + 1) // 4 - 2) * 4), offset + 1))
        assert not left_out & set(items)
        assert len(items) == 5
