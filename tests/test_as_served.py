"""A replay that did something else than the workers is found, and the first difference is named."""

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl
import pytest

from stream.replay.shard import LISTS
from stream.state_rows import SCHEMA
from tests.as_served import list_differences, state_differences
from tests.same_lists import SAME

Row = dict[str, Any]


def made(partition: int, offset: int, **changed: Any) -> Row:
    usual = {
        "user_id": f"user-{offset % 3}",
        "items": ["a", "b", "c", "d"],
        "scores": [0.9, 0.5, 0.5, 0.25],
        "as_of": 1_700_000_000_000 + offset,
        "partition": partition,
        "offset": offset,
        "taken": offset,
        "folds": 0,
        "model": "films@1",
        "source": "working",
    }
    return {**usual, **changed}


def lists(*rows: Row) -> pl.DataFrame:
    return pl.DataFrame(rows, LISTS)


LIVE = [made(1, 5), made(0, 7), made(0, 4)]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"user_id": "user-9"}, "user user-1, partition 0, offset 4: the user is user-9 again"),
        ({"model": "films@2"}, "user user-1, partition 0, offset 4: model was films@1, and is films@2 again"),
        ({"taken": 5}, "user user-1, partition 0, offset 4: taken was 4, and is 5 again"),
        ({"folds": 1}, "user user-1, partition 0, offset 4: folds was 0, and is 1 again"),
        ({"source": "memory"}, "user user-1, partition 0, offset 4: source was working, and is memory again"),
        ({"as_of": 3}, "user user-1, partition 0, offset 4: as_of was 1700000000004, and is 3 again"),
        ({"items": ["z", "b", "c", "d"]}, "user user-1, partition 0, offset 4: item 1 was a, and is z again"),
        ({"items": ["a", "b", "e", "d"]}, "user user-1, partition 0, offset 4: item 3 was c, and is e again"),
        (
            {"scores": [0.9, 0.5, 0.49, 0.25]},
            "user user-1, partition 0, offset 4: score 3 was 0.500000, and is 0.490000 again",
        ),
        (
            {"items": ["a", "b"], "scores": [0.9, 0.5]},
            "user user-1, partition 0, offset 4: the list had 4 items, and has 2 again",
        ),
    ],
)
def test_a_list_that_differs_is_named_with_its_first_difference(changed: Mapping[str, Any], said: str) -> None:
    again = [made(1, 5, taken=99), made(0, 7), {**made(0, 4), **changed}]
    later = "user user-2, partition 1, offset 5: taken was 5, and is 99 again"
    assert [*list_differences(lists(*LIVE), lists(*again))] == [said, later]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"items": ["a", "c", "b", "d"]},
        {"items": ["a", "b", "c", "e"]},
        {"scores": [0.9 + SAME / 2, 0.5, 0.5, 0.25]},
    ],
    ids=["nothing", "a tie in another order", "another item of the tie at the end", "the last digits"],
)
def test_what_batches_change_is_no_difference(changed: Mapping[str, Any]) -> None:
    again = [*LIVE[:2], {**LIVE[2], **changed}]
    assert [*list_differences(lists(*LIVE), lists(*again))] == []


def test_a_list_of_one_side_alone_is_a_difference_but_where_workers_make_one_for_each_step() -> None:
    more = lists(*LIVE, made(0, 9))
    alone, lacking = (
        f"user user-0, partition 0, offset 9: {what}"
        for what in ("a list in the replay alone", "no list in the replay")
    )
    assert [*list_differences(lists(*LIVE), more)] == [alone]
    assert [*list_differences(lists(*LIVE), more, every=False)] == []
    assert [*list_differences(more, lists(*LIVE), every=False)] == [lacking]


def memory(**changed: Any) -> Row:
    usual = {"memory_format": "a/1", "folds": 1, "as_of": 20, "memory": [0.5], "missing_segments": 0, "prepared": False}
    return {**usual, **changed}


def state(**changed: Any) -> Row:
    usual = {
        "user_id": "user-1",
        "taken": 5,
        "folds": 2,
        "working_items": ["e"],
        "working_times": [50],
        "memory": [0.25, 0.75],
        "memory_format": "b/2",
        "as_of": 50,
        "partition": 3,
        "missing_segments": 0,
        "memory_as_of": 40,
        "prepared": False,
        "kept_segments": [{"number": 1, "items": ["c", "d"], "times": []}],
        "other_memories": [memory()],
    }
    return {**usual, **changed}


def states(*rows: Row) -> pl.DataFrame:
    return pl.DataFrame(rows, dict(SCHEMA))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"taken": 6}, "taken is 5, and 6 in the replay"),
        ({"working_items": ["f"]}, "working_items is ['e'], and ['f'] in the replay"),
        (
            {"kept_segments": []},
            "kept_segments is [{'number': 1, 'items': ['c', 'd'], 'times': []}], and [] in the replay",
        ),
        ({"memory": [0.25, 0.751]}, "the memory of (2, 'b/2') differs by 1.00e-03"),
        ({"missing_segments": 1}, "the memory of (2, 'b/2') has (40, 0), and (40, 1) in the replay"),
        ({"other_memories": []}, "memories are of [(1, 'a/1'), (2, 'b/2')], and of [(2, 'b/2')] in the replay"),
        ({"other_memories": [memory(memory=[0.6])]}, "the memory of (1, 'a/1') differs by 1.00e-01"),
    ],
)
def test_a_state_that_differs_is_named_with_its_first_difference(changed: Mapping[str, Any], said: str) -> None:
    (found,) = state_differences(states(state()), states(state(**changed)))
    assert found.startswith(f"user user-1, partition 3: {said}")


def test_a_memory_that_has_folded_nothing_may_be_on_one_side_alone() -> None:
    beside = memory(memory_format="c/3", folds=2, prepared=True)
    assert [*state_differences(states(state(other_memories=[memory(), beside])), states(state()))] == []
    # A memory that the version in service has not folded into yet is shown first.
    shown = state(
        memory_format="c/3",
        memory=[0.1],
        prepared=True,
        other_memories=[memory(), memory(memory_format="b/2", folds=2, as_of=40, memory=[0.25, 0.75])],
    )
    assert [*state_differences(states(shown), states(state()))] == []


@pytest.mark.parametrize("turned", [False, True])
def test_a_user_of_one_side_alone_is_a_difference(turned: bool) -> None:
    sides: list[Callable[[], pl.DataFrame]] = [
        lambda: states(state(), state(user_id="user-2")),
        lambda: states(state()),
    ]
    one, other = (side() for side in (sides[::-1] if turned else sides))
    assert [*state_differences(one, other)] == [
        f"user user-2: {'in the replay alone' if turned else 'not in the replay'}"
    ]
