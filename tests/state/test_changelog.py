"""What a step writes: only what changed, and enough to read the same user again."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.changelog import Change, Keep, take
from state.codec import (
    FOLDED,
    WORKING,
    folded_key,
    preference_key,
    read_folded,
    read_user,
    read_working,
    taken_of,
    user_of,
    working_key,
)
from state.user import NEW_USER, Preference, Segment, User, packed, remember, unpacked

SEGMENT = 4
USER = b"6040"

interactions = st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**53))
steps = st.lists(st.lists(interactions, min_size=1, max_size=3 * SEGMENT), max_size=12)
histories = st.lists(interactions, max_size=40)


def folded(before: Preference | None, segments: Iterable[Segment]) -> Preference | None:
    """A preference memory that depends on every item and on their order."""
    for segment in segments:
        old = b"" if before is None else before.memory
        memory = blake2b(old + segment.items, digest_size=8).digest()
        before = Preference("fake/1", SEGMENT, segment.number + 1, unpacked(segment.times)[-1], memory)
    return before


def step(user: User, items: Sequence[int], times: Sequence[int], keep: int = 5) -> tuple[User, list[Change]]:
    remembered = remember(user, packed(items), packed(times), SEGMENT)
    changes: list[Change] = []
    return take(
        changes, USER, user, items, times, remembered, folded(user.preference, remembered.segments), Keep(keep)
    ), changes


def applied(stored: dict[bytes, bytes], changes: Iterable[Change]) -> None:
    for key, value in changes:
        if value is None:
            stored.pop(key, None)
        else:
            stored[key] = value


def reread(stored: dict[bytes, bytes]) -> User:
    parts = [(user_of(key)[1], value) for key, value in sorted(stored.items())]
    return read_user((rest, value) for rest, value in parts if rest[:1] != FOLDED)


def kept(stored: dict[bytes, bytes]) -> dict[int, list[int]]:
    parts = [(user_of(key)[1], value) for key, value in stored.items()]
    return {int.from_bytes(rest[1:], "big"): read_folded(value)[0] for rest, value in parts if rest[:1] == FOLDED}


@given(steps, st.integers(0, 4))
def test_reading_what_was_written_gives_the_user_that_the_step_returned(
    steps: list[list[tuple[int, int]]], keep: int
) -> None:
    user, stored = NEW_USER, dict[bytes, bytes]()
    for new in steps:
        user, changes = step(user, [item for item, _ in new], [time for _, time in new], keep)
        applied(stored, changes)
        assert reread(stored) == user


@given(steps, st.integers(0, 4))
def test_what_is_stored_is_the_history_and_nothing_else(steps: list[list[tuple[int, int]]], keep: int) -> None:
    user, stored = NEW_USER, dict[bytes, bytes]()
    for new in steps:
        user, changes = step(user, [item for item, _ in new], [time for _, time in new], keep)
        applied(stored, changes)
    items, times = ([each[at] for new in steps for each in new] for at in (0, 1))
    folds = len(items) // SEGMENT
    assert user.folds == folds
    assert unpacked(user.items).tolist() == items[folds * SEGMENT :]
    assert unpacked(user.times).tolist() == times[folds * SEGMENT :]
    assert kept(stored) == {
        number: items[number * SEGMENT :][:SEGMENT] for number in range(max(0, folds - keep), folds)
    }
    assert (user.preference and user.preference.as_of) == (times[folds * SEGMENT - 1] if folds else None)
    working = sorted((key, value) for key, value in stored.items() if user_of(key)[1][:1] == WORKING)
    assert sum(len(read_working(value)[0]) for _, value in working) == len(items) % SEGMENT, (
        "nothing stale stays behind"
    )
    assert [taken_of(user_of(key)[1]) for key, _ in working][:1] == [len(items)][: len(stored)], (
        "the first one says how far the user is"
    )


@given(histories, st.lists(st.integers(1, 40)), st.integers(0, 3))
def test_state_does_not_depend_on_how_the_history_was_cut_into_steps(
    history: list[tuple[int, int]], cuts: list[int], keep: int
) -> None:
    ends = []
    for edges in (sorted({*cuts, len(history)}), range(1, len(history) + 1)):
        user, stored, start = NEW_USER, dict[bytes, bytes](), 0
        for end in edges:
            new = history[start:end]
            start = max(start, end)
            if new:
                user, changes = step(user, [item for item, _ in new], [time for _, time in new], keep)
                applied(stored, changes)
        ends.append((user.taken, user.folds, user.items, user.times, user.preference, kept(stored)))
    assert ends[0] == ends[1]


@settings(max_examples=50)
@given(
    st.lists(interactions, min_size=2 * SEGMENT, max_size=3 * SEGMENT - 1),
    st.lists(interactions, min_size=1, max_size=SEGMENT),
)
def test_stale_working_records_that_were_never_deleted_change_nothing(
    first: list[tuple[int, int]], then: list[tuple[int, int]]
) -> None:
    """The preference record alone makes them stale: whoever reads between it and the deletions reads the same user."""
    user, stored = NEW_USER, dict[bytes, bytes]()
    for item, time in first:
        user, changes = step(user, [item], [time])
        applied(stored, [change for change in changes if change[1] is not None])
    again = reread(stored)
    assert (again.taken, again.items, again.times, again.preference) == (
        user.taken,
        user.items,
        user.times,
        user.preference,
    )
    # A step on from what was read deletes what is stale at the next fold.
    for item, time in then * SEGMENT:
        again, changes = step(again, [item], [time])
        applied(stored, changes)
        if again.folds > user.folds:
            break
    assert reread(stored) == again
    assert again.ends == (again.taken,)


def test_a_step_without_a_fold_writes_one_record_with_the_new_items_alone() -> None:
    user, _ = step(NEW_USER, [1], [10])
    user, changes = step(user, [2, 3], [20, 30])
    ((key, value),) = changes
    assert key == working_key(USER, 3)
    assert value is not None
    assert read_working(value) == ([2, 3], [20, 30])
    assert user.ends == (3, 1)


def test_a_fold_deletes_the_working_records_and_writes_the_preference_memory_and_the_segment() -> None:
    user = NEW_USER
    for item in (1, 2, 3):
        user, _ = step(user, [item], [item])
    _, changes = step(user, [4], [4])
    told = dict(changes)
    assert len(changes) == len(told) == 6
    assert {key for key, value in changes if value is None} == {working_key(USER, end) for end in (1, 2, 3)}
    assert {key for key, value in changes if value is not None} == {
        preference_key(USER),
        folded_key(USER, 0),
        working_key(USER, 4),
    }


@pytest.mark.parametrize("rest", [[], [5], [5, 6]])
def test_what_a_fold_leaves_over_is_the_one_working_record_afterwards(rest: list[int]) -> None:
    user, _ = step(NEW_USER, [1, 2], [1, 2])
    user, changes = step(user, [3, 4, *rest], [3, 4, *rest])
    value = dict(changes)[working_key(USER, 4 + len(rest))]
    assert value is not None
    assert read_working(value) == (rest, rest)
    assert user.ends == (4 + len(rest),)


def test_the_oldest_kept_segment_makes_room_for_the_newest() -> None:
    user = NEW_USER
    for number in range(3):
        user, changes = step(user, range(SEGMENT), range(SEGMENT), keep=2)
        gone = {key for key, value in changes if value is None and user_of(key)[1][:1] == FOLDED}
        assert gone == ({folded_key(USER, 0)} if number == 2 else set())


def test_segments_that_would_be_dropped_at_once_are_never_written() -> None:
    _, changes = step(NEW_USER, range(5 * SEGMENT), range(5 * SEGMENT), keep=2)
    assert [key for key, _ in changes if user_of(key)[1][:1] == FOLDED] == [folded_key(USER, 3), folded_key(USER, 4)]


def test_with_keep_0_no_segment_is_kept() -> None:
    stored: dict[bytes, bytes] = {}
    _, changes = step(NEW_USER, range(3 * SEGMENT), range(3 * SEGMENT), keep=0)
    applied(stored, changes)
    assert set(stored) == {preference_key(USER), working_key(USER, 3 * SEGMENT)}


def test_after_keep_was_lowered_the_newest_segments_are_kept_all_the_same() -> None:
    """What was kept before may stay."""
    user, stored = NEW_USER, dict[bytes, bytes]()
    for keep in (5, 5, 5, 5, 2):
        user, changes = step(user, range(SEGMENT), range(SEGMENT), keep)
        applied(stored, changes)
    assert {3, 4} <= set(kept(stored))


def test_an_interaction_costs_less_than_40_bytes() -> None:
    """A user and a film as in MovieLens: ids of four digits, a time in ms."""
    user, _ = step(NEW_USER, [3952], [978_300_760_000])
    _, ((key, value),) = step(user, [1193], [978_300_761_000])
    assert len(key) + len(value or b"") < 40


@pytest.mark.parametrize(
    "preference", [None, Preference("fake/1", SEGMENT, 2, 0, b""), Preference("fake/1", SEGMENT, 0, 0, b"")]
)
def test_a_preference_memory_that_does_not_hold_the_segments_is_refused(preference: Preference | None) -> None:
    items = range(SEGMENT)
    remembered = remember(NEW_USER, packed(items), packed(items), SEGMENT)
    with pytest.raises(ValueError, match="expected 0 and 1 more"):
        take([], USER, NEW_USER, items, items, remembered, preference, Keep(5))
