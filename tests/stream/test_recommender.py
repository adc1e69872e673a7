"""Where state meets the model: rows for item keys, folds, rebuilds, and lists that are never empty."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.interaction import item_key
from state.user import Preference, Segment, packed
from stream.recommender import Query, RankedList, Recommender
from tests.fakes import FakeModel

SEGMENT = 4
ITEMS = 20


class NamedModel(FakeModel):
    """Items by name and by number, in no order."""

    def __init__(self) -> None:
        super().__init__(SEGMENT, 6)
        self.item_ids = ["song-b", 7, "song-a", 10**17, "0", -5]


@pytest.fixture
def recommender() -> Recommender:
    return Recommender(FakeModel(SEGMENT, ITEMS))


def memory_of(recommender: Recommender, *segments: Sequence[int]) -> Preference:
    made: Preference | None = None
    for number, segment in enumerate(segments):
        made = recommender.fold([made], [packed(segment)], [100 * number])[0].preference
    assert made is not None
    return made


def query(
    preference: Preference | None = None,
    items: Sequence[int] = (),
    exclude: Sequence[int] = (),
    hidden: Sequence[float] | None = None,
) -> Query:
    after = None if hidden is None else np.array(hidden, dtype=np.float32)
    return Query(preference, packed(items), packed(exclude), after, packed([70] * len(items)), 70)


def one(recommender: Recommender, asked: Query, k: int = 5) -> RankedList:
    (made,) = recommender.recommend([asked], k)
    return made


def test_rows_are_looked_up_by_item_key_whatever_the_catalogues_order() -> None:
    recommender = Recommender(NamedModel())
    keys = [item_key(item) for item in ("song-a", "song-b", "7", 7, 10**17, str(10**17), 0, "-5", -5)]
    assert recommender.rows(packed(keys)).tolist() == [3, 1, 2, 2, 4, 4, 5, 6, 6]


def test_items_that_the_model_does_not_know_are_out_of_vocabulary() -> None:
    recommender = Recommender(NamedModel())
    unknown = [item_key(item) for item in (8, "song-c", 2**62 - 1, "07")]
    assert recommender.rows(packed(unknown)).tolist() == [recommender.model.oov_row] * 4
    assert recommender.unknown(packed([*unknown, 7])) == 4
    assert recommender.unknown(b"") == 0


@given(st.lists(st.integers(0, 2**63 - 1)))
def test_an_empty_catalogue_knows_nothing(keys: list[int]) -> None:
    recommender = Recommender(FakeModel(SEGMENT, 0))
    assert recommender.rows(packed(keys)).tolist() == [1] * len(keys)


def test_lists_hold_item_ids_as_they_came_in() -> None:
    made = one(Recommender(NamedModel()), query(), k=6)
    assert sorted(map(str, made.items)) == sorted(["song-b", "7", "song-a", str(10**17), "0", "-5"])
    assert {type(item) for item in made.items} == {str, int}


def test_a_list_has_exactly_k_items_after_exclusion(recommender: Recommender) -> None:
    made = one(recommender, query(items=[1, 2], exclude=[1, 2, 3]))
    assert len(made.items) == len(made.scores) == 5
    assert not set(made.items) & {1, 2, 3}
    assert made.scores == sorted(made.scores, reverse=True)
    assert all(type(score) is float for score in made.scores)


def test_a_list_is_shorter_only_where_the_catalogue_has_no_more(recommender: Recommender) -> None:
    assert len(one(recommender, query(), k=100).items) == ITEMS
    left = one(recommender, query(exclude=range(3, ITEMS)), k=5)
    assert sorted(map(int, left.items)) == [0, 1, 2]
    assert np.isfinite(left.scores).all()


@pytest.mark.parametrize("hidden", [None, [1.0, 2.0, 3.0]], ids=["working memory", "after a fold"])
def test_who_has_had_the_whole_catalogue_gets_it_again(recommender: Recommender, hidden: list[float] | None) -> None:
    everything = query(items=[3], exclude=range(ITEMS), hidden=hidden)
    something = query(items=[3], exclude=[1], hidden=hidden)
    again, usual = recommender.recommend([everything, something], 5)
    assert again == one(recommender, query(items=[3], hidden=hidden))
    assert usual == one(recommender, something), "others in the batch are as they would be alone"


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, ITEMS + 5), max_size=6), st.lists(st.integers(0, ITEMS + 5)), st.booleans()),
        min_size=1,
    )
)
def test_a_list_is_never_empty_and_does_not_depend_on_its_batch(asked: list[tuple[list[int], list[int], bool]]) -> None:
    recommender = Recommender(FakeModel(SEGMENT, ITEMS))
    queries = [
        query(
            memory_of(recommender, [1, 2, 3, 4]) if folded else None,
            items,
            exclude,
            [1.0, 2.0, 3.0] if folded and not items else None,
        )
        for items, exclude, folded in asked
    ]
    together = recommender.recommend(queries, 5)
    assert together == [one(recommender, alone) for alone in queries]
    for (_, exclude, _), made in zip(asked, together, strict=True):
        assert made.items
        assert len(made.items) == len(made.scores)
        if len(set(exclude) & set(range(ITEMS))) < ITEMS:
            assert not set(made.items) & set(exclude)


def test_excluding_an_unknown_item_excludes_nothing(recommender: Recommender) -> None:
    assert one(recommender, query(exclude=[ITEMS + 3, 10**9]), k=ITEMS) == one(recommender, query(), k=ITEMS)


def test_the_source_says_what_a_list_went_by(recommender: Recommender) -> None:
    preference = memory_of(recommender, [1, 2, 3, 4])
    forgotten = Preference(preference.memory_format, SEGMENT, 3, 0, bytes(4 * recommender.model.state_floats))
    asked = {
        "memory": [
            query(preference),
            query(preference, [3]),
            query(preference, [ITEMS + 1]),
            query(None, [], hidden=[1, 2, 3]),
        ],
        "working": [query(None, [3]), query(None, [ITEMS + 1, 3]), query(forgotten, [3])],
        "popular": [query(None), query(None, [ITEMS + 1]), query(forgotten), query(forgotten, [ITEMS + 1])],
    }
    for source, queries in asked.items():
        assert {made.source for made in recommender.recommend(queries, 5)} == {source}


def test_without_a_memory_and_a_known_item_everybody_gets_the_same_list(recommender: Recommender) -> None:
    lists = recommender.recommend(
        [query(None), query(None, [ITEMS + 1]), query(None, [ITEMS + 2, ITEMS + 3, ITEMS + 4])], 5
    )
    assert lists[0] == lists[1] == lists[2]


def test_lists_come_in_the_order_asked_for(recommender: Recommender) -> None:
    queries = [query(None, [1]), query(hidden=[5, 5, 5]), query(None, [2]), query(hidden=[1, 9, 4])]
    assert recommender.recommend(queries, 5) == [one(recommender, each) for each in queries]
    assert recommender.recommend([], 5) == []


def test_a_fold_counts_and_carries_the_time_the_format_and_the_length(recommender: Recommender) -> None:
    first, second = recommender.fold([None, memory_of(recommender, [1, 2, 3, 4])], [packed([5, 6, 7, 8])] * 2, [70, 90])
    assert [(f.preference.folds, f.preference.as_of) for f in (first, second)] == [(1, 70), (2, 90)]
    assert (second.preference.memory_format, second.preference.segment_length) == ("fake/1", SEGMENT)
    assert first.preference.memory != second.preference.memory
    assert len(first.preference.memory) == 4 * recommender.model.state_floats


def test_a_rebuilt_memory_is_the_one_that_the_kept_segments_make(recommender: Recommender) -> None:
    def other(folds: int) -> Preference:
        return Preference("other/9", SEGMENT, folds, 777, b"\x01" * 64)

    segments = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9]]
    kept = [
        [Segment(number, packed(segment), b"") for number, segment in enumerate(segments)],
        [Segment(7, packed(segments[1]), b"")],
        [],
    ]
    all_kept, one_kept, none_kept = recommender.rebuild([other(3), other(8), other(2)], [None] * 3, kept)
    assert all_kept.memory == memory_of(recommender, *segments).memory
    assert one_kept.memory == memory_of(recommender, segments[1]).memory
    assert none_kept.memory == bytes(4 * recommender.model.state_floats), "nothing is left to go by"
    assert [(p.folds, p.as_of, p.memory_format, p.missing) for p in (all_kept, one_kept, none_kept)] == [
        (3, 777, "fake/1", 0),
        (8, 777, "fake/1", 7),
        (2, 777, "fake/1", 2),
    ]


def test_a_memory_that_was_there_before_is_caught_up(recommender: Recommender) -> None:
    """It lacks what neither it nor the kept segments hold."""
    history = [[number, 2, 3, 4] for number in range(6)]
    before = memory_of(recommender, *history[:2])
    newer = Preference("other/9", SEGMENT, 6, 777, b"\x01" * 64)
    all_kept, two_kept, had_gap = recommender.rebuild(
        [newer] * 3,
        [before, before, msgspec.structs.replace(before, missing=1)],
        [[Segment(number, packed(history[number]), b"") for number in range(first, 6)] for first in (1, 4, 4)],
    )
    assert (all_kept.memory, all_kept.folds, all_kept.missing) == (memory_of(recommender, *history).memory, 6, 0)
    assert (two_kept.memory, two_kept.missing) == (memory_of(recommender, *history[:2], *history[4:]).memory, 2)
    assert (had_gap.memory, had_gap.missing) == (two_kept.memory, 3)


def test_rebuilding_nobody_is_nothing(recommender: Recommender) -> None:
    assert recommender.rebuild([], [], []) == []
