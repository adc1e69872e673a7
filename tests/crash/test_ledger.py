"""The ledger as a worker runs it, scripted and in batches, computes what its arithmetic says."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ModelFailed
from model.version.registry import Registry
from model.version.runtime import Runtime
from state.user import Preference, packed
from stream.recommender import Query, Recommender
from tests.crash import ledger
from tests.crash.arithmetic import EMPTY, Catalogue, Memory, fold, seed

LENGTH = 4
ITEMS: list[int | str] = [7, 3, *(f"item-{number}" for number in range(28))]
CATALOGUE = Catalogue(ITEMS)
UNKNOWN = CATALOGUE.unknown

segments = st.lists(st.integers(1, UNKNOWN), min_size=LENGTH, max_size=LENGTH)
users = st.lists(segments, max_size=3)


DIALECT, SALT = 2, 4711


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    registry = Registry(tmp_path_factory.mktemp("models"))
    return Runtime.load(ledger.write(registry, ITEMS, LENGTH, dialect=DIALECT, salt=SALT).folder)


def folded(histories: list[list[list[int]]]) -> list[Memory]:
    made = []
    for history in histories:
        memory = EMPTY
        for segment in history:
            memory = fold(memory, segment, DIALECT)
        made.append(memory)
    return made


@given(st.lists(st.tuples(users, segments), min_size=1, max_size=70))
@settings(max_examples=30, deadline=None)
def test_a_fold_is_the_arithmetic_in_batches_of_any_size(
    runtime: Runtime, asked: list[tuple[list[list[int]], list[int]]]
) -> None:
    before = folded([history for history, _ in asked])
    made = runtime.fold(np.array(before, np.float32), np.array([segment for _, segment in asked]))
    expected = [fold(memory, segment, DIALECT) for memory, (_, segment) in zip(before, asked, strict=True)]
    assert made.memory.astype(np.int64).tolist() == [list(memory) for memory in expected]
    assert made.hidden.astype(np.int64).ravel().tolist() == [seed(memory, (), SALT) for memory in expected]


@given(
    st.lists(
        st.tuples(
            users, st.lists(st.integers(1, UNKNOWN), max_size=LENGTH), st.lists(st.integers(1, UNKNOWN), max_size=40)
        ),
        min_size=1,
        max_size=40,
    ),
    st.integers(1, 35),
)
@settings(max_examples=30, deadline=None)
def test_a_list_is_the_arithmetic_whatever_is_excluded(
    runtime: Runtime, asked: list[tuple[list[list[int]], list[int], list[int]]], k: int
) -> None:
    recommender = Recommender(runtime)
    memories = folded([history for history, _, _ in asked])

    def items(rows: list[int]) -> bytes:
        keys = {
            row: key for key, row in zip(recommender._sorted.tolist(), (recommender._order + 1).tolist(), strict=True)
        }
        return packed(keys.get(row, 12345) for row in rows)

    queries = [
        Query(
            Preference(runtime.memory_format, LENGTH, len(history), 0, np.array(memory, np.float32).tobytes())
            if history
            else None,
            items(working),
            items(exclude),
            None,
            b"",
            0,
        )
        for memory, (history, working, exclude) in zip(memories, asked, strict=True)
    ]
    for made, memory, (history, working, exclude) in zip(
        recommender.recommend(queries, k), memories, asked, strict=True
    ):
        # Without a memory and a known item nothing is known, not even what is unknown.
        known = working if history or any(row != UNKNOWN for row in working) else []
        assert (made.items, made.scores) == CATALOGUE.ranked(seed(memory, known, SALT), k, exclude)


def test_versions_differ_in_what_they_remember_and_what_they_make_of_it() -> None:
    assert len({fold(EMPTY, [1, 2, 3, 4], dialect) for dialect in range(1, 20)}) == 19
    assert len({seed((1, 2, 3), [4], salt) for salt in range(20)}) == 20


def test_no_two_of_a_thousand_histories_have_the_same_memory() -> None:
    chosen = np.random.default_rng(0)
    assert len({fold(EMPTY, chosen.integers(1, 30, 20).tolist()) for _ in range(1000)}) == 1000


@given(segments.filter(lambda rows: len(set(rows)) > 1))
def test_a_memory_knows_a_missing_a_doubled_and_a_misplaced_item(rows: list[int]) -> None:
    swapped = sorted(rows) if sorted(rows) != rows else sorted(rows, reverse=True)
    assert len({fold(EMPTY, each) for each in (rows, rows[1:], [*rows, rows[-1]], swapped)}) == 4


def test_a_ledger_that_fails_does_so_at_its_last_item_alone(tmp_path: Path) -> None:
    failing = Runtime.load(ledger.write(Registry(tmp_path), ITEMS, LENGTH, fails=True).folder)
    memory = np.zeros((1, ledger.STATE_FLOATS), np.float32)
    poison = len(ITEMS)
    assert failing.fold(memory, np.array([[1, 2, poison - 1, UNKNOWN]])).memory.any()
    with pytest.raises(ModelFailed, match=f"failed in update: .*{ledger.FAILURE}"):
        failing.fold(memory, np.array([[1, poison, 2, 3]]))
