"""Decisions as pure functions: when a list is due, and how large the next step may be."""

from hypothesis import given
from hypothesis import strategies as st

from stream.policy import JUDGED_FROM, NEWEST, Cadence, KnownShare, RefusedShare, StepSize, list_after

lengths = st.integers(1, 12)
every = st.one_of(st.sampled_from(["interaction", "fold"]), st.integers(1, 30))


@given(every, st.integers(0, 50), st.data(), lengths, st.integers(0, 40))
def test_a_list_is_due_exactly_where_its_definition_says(
    cadence: Cadence, folds: int, data: st.DataObject, length: int, new: int
) -> None:
    working = data.draw(st.integers(0, length - 1))
    expected = []
    for at in range(new):
        taken = folds * length + working + at + 1
        if cadence == "interaction":
            asked = at == new - 1
        elif cadence == "fold":
            asked = taken % length == 0
        else:
            asked = taken % cadence == 0
        if asked:
            expected.append(at)
    assert list(list_after(cadence, folds, working, new, length)) == expected


budgets = st.floats(0.001, 10)
costs = st.floats(0, 1)


def after(size: StepSize, backlog: int, per_record: float, fixed: float = 0.0) -> float:
    """One step on a backlog; returns how long it took."""
    records = min(backlog, size.limit)
    seconds = fixed + records * per_record
    size.learn(records, seconds)
    return seconds


@given(budgets, st.integers(1, 10_000), st.lists(st.tuples(st.integers(1, 20_000), costs), max_size=30))
def test_the_limit_stays_between_one_and_the_largest(
    budget: float, largest: int, steps: list[tuple[int, float]]
) -> None:
    size = StepSize(budget_s=budget, largest=largest)
    for backlog, per_record in steps:
        assert 1 <= size.limit <= largest
        after(size, backlog, per_record)
    assert 1 <= size.limit <= largest


def test_with_a_backlog_and_time_to_spare_the_limit_doubles_up_to_the_largest() -> None:
    size = StepSize(budget_s=0.25, largest=10_000, first=500)
    limits = []
    for _ in range(7):
        limits.append(size.limit)
        after(size, 10**6, 1e-6)
    assert limits == [500, 1000, 2000, 4000, 8000, 10_000, 10_000]


def test_light_load_leaves_the_limit_alone() -> None:
    size = StepSize(budget_s=0.25, largest=10_000, first=500)
    for records in (1, 20, 499):
        size.learn(records, 0.01)
        assert size.limit == 500


def test_a_step_over_the_budget_shrinks_the_limit_even_when_it_was_not_full() -> None:
    size = StepSize(budget_s=0.25, largest=10_000, first=500)
    size.learn(400, 1.0)
    assert size.limit == 100


@given(st.integers(1, 5_000), st.floats(1e-5, 0.2))
def test_the_limit_settles_where_a_step_takes_its_budget(first: int, per_record: float) -> None:
    size = StepSize(budget_s=0.25, largest=10_000, first=first)
    for _ in range(20):
        seconds = after(size, 10**6, per_record)
    assert seconds <= 0.25 * 1.001
    assert abs(size.limit - min(10_000, int(0.25 / per_record))) <= 1, "one more or less is rounding"


def test_a_record_that_alone_takes_longer_than_the_budget_is_taken_all_the_same() -> None:
    size = StepSize(budget_s=0.01, largest=10_000, first=500)
    for _ in range(5):
        after(size, 10**6, 1.0)
    assert size.limit == 1


def test_a_step_that_took_no_time_at_all_is_no_error() -> None:
    size = StepSize(budget_s=0.25, largest=10_000, first=500)
    size.learn(500, 0.0)
    assert size.limit == 1000


def test_a_few_refused_records_are_not_judged() -> None:
    share = RefusedShare(0.5)
    assert not share.exceeded_by(JUDGED_FROM - 1, JUDGED_FROM - 1)
    assert share.exceeded_by(JUDGED_FROM, JUDGED_FROM)
    share.note(JUDGED_FROM - 1, JUDGED_FROM - 1)
    assert share.exceeded_by(1, 1), "steps add up"


def test_asking_about_a_step_changes_nothing() -> None:
    share = RefusedShare(0.5)
    for _ in range(3):
        assert not share.exceeded_by(99, 99)


def test_a_share_of_one_is_never_exceeded() -> None:
    assert not RefusedShare(1.0).exceeded_by(1000, 1000)


def test_only_the_newest_thousand_count() -> None:
    share = RefusedShare(0.5)
    for _ in range(10):
        share.note(NEWEST, 0)
    assert not share.exceeded_by(NEWEST, NEWEST), "half of two thousand"
    share.note(NEWEST, NEWEST)
    assert share.records == NEWEST
    assert share.exceeded_by(1, 1)


def test_few_known_items_are_said_once_and_again_only_after_it_was_right() -> None:
    share = KnownShare()
    assert not share.fell_with(JUDGED_FROM - 1, JUDGED_FROM - 1), "too few to judge"
    assert share.fell_with(1, 1)
    assert (share.items, share.known) == (JUDGED_FROM, 0)
    assert not any(share.fell_with(100, 100) for _ in range(50))
    assert not any(share.fell_with(100, 40) for _ in range(10)), "better, and not yet right"
    assert not any(share.fell_with(100, 60) for _ in range(10)), "worse again, said already"
    assert not any(share.fell_with(100, 10) for _ in range(10)), "right"
    assert [share.fell_with(100, 60) for _ in range(20)].count(True) == 1


@given(st.lists(st.tuples(st.integers(0, 3_000), st.floats(0, 1)), max_size=40))
def test_what_is_said_is_true_of_the_newest_items(steps: list[tuple[int, float]]) -> None:
    share = KnownShare()
    shown: list[bool] = []
    for items, part in steps:
        unknown = int(items * part)
        said = share.fell_with(items, unknown)
        shown += [True] * (items - unknown) + [False] * unknown
        assert 0 <= share.known <= share.items
        assert share.items >= min(len(shown), NEWEST)
        if said:
            assert share.known < share.items / 2


def test_a_model_of_this_topic_is_never_called_out() -> None:
    share = KnownShare()
    assert not any(share.fell_with(50, 24) for _ in range(1_000))
