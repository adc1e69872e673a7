"""The contract of `stream.recommender.Model`: what the recommender relies on. Every test runs on the fakes and on small
real model versions.
"""

from pathlib import Path

import numpy as np
import pytest

from model.version.runtime import Runtime
from stream.recommender import Floats, Folded, Ints, Model, Ranked
from tests.fakes import FakeModel, TimedModel
from tests.model import tiny

USERS = 5
SMALL = 5e-6
"""How far apart the same computation may be in another batch."""


@pytest.fixture(scope="module", params=["FakeModel", "TimedModel", "rec2pm-o", "full, by time"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    match request.param:
        case "FakeModel":
            return FakeModel(4)
        case "TimedModel":
            return TimedModel(4)
        case "rec2pm-o":
            return loaded(tmp_path_factory.mktemp("models"), "rec2pm-o", "sasrec")
        case _:
            return loaded(tmp_path_factory.mktemp("models"), "full", "pos_time")


def loaded(folder: Path, kind: str, backbone: str) -> Runtime:
    return Runtime.load(tiny.add(folder, config=tiny.config(kind, backbone)).folder)


def some_rows(model: Model, columns: int, seed: int = 0) -> Ints:
    """(USERS, columns) catalogue rows; the one for unknown items may be among them."""
    return np.random.default_rng(seed).integers(1, model.oov_row + 1, (USERS, columns))


def times_of(model: Model, rows: Ints) -> Ints | None:
    """A time for each row, where the model goes by time."""
    return 1_700_000_000_000 + rows * 60_000 if model.uses_time else None


def newest(model: Model) -> Ints | None:
    return np.full(USERS, 1_800_000_000_000) if model.uses_time else None


def nobody_has_a_memory(model: Model) -> Floats:
    return np.zeros((USERS, model.state_floats), np.float32)


def fold(model: Model, memory: Floats, rows: Ints) -> Folded:
    return model.fold(memory, rows, times_of(model, rows))


def some_memory(model: Model) -> Floats:
    return fold(model, nobody_has_a_memory(model), some_rows(model, model.segment_length, seed=1)).memory


def recommend(model: Model, memory: Floats, rows: Ints, lengths: Ints, k: int, exclude: Ints) -> Ranked:
    return model.recommend(memory, rows, lengths, k, exclude, times_of(model, rows), newest(model))


def excluding(*rows: int) -> Ints:
    return np.tile(np.array(rows, np.int64), (USERS, 1))


def test_the_row_for_unknown_items_comes_right_after_the_catalogue(model: Model) -> None:
    assert model.oov_row == len(model.item_ids) + 1


def test_a_fold_makes_a_memory_of_the_stated_size_that_is_not_the_empty_one(model: Model) -> None:
    memory, rows = nobody_has_a_memory(model), some_rows(model, model.segment_length)
    folded = fold(model, memory, rows)
    assert (folded.memory.shape, folded.memory.dtype) == ((USERS, model.state_floats), np.float32)
    assert (len(folded.hidden), folded.hidden.dtype) == (USERS, np.float32)
    assert folded.memory.any(axis=1).all()
    assert not memory.any(), "what was given stays as it was"


def test_a_fold_depends_on_the_memory_before_it_and_on_every_item(model: Model) -> None:
    memory, rows = some_memory(model), some_rows(model, model.segment_length)
    folded = fold(model, memory, rows).memory
    assert (fold(model, nobody_has_a_memory(model), rows).memory != folded).any(axis=1).all()
    for column in range(model.segment_length):
        other = rows.copy()
        other[:, column] = rows[:, column] % len(model.item_ids) + 1
        assert (fold(model, memory, other).memory != folded).any(axis=1).all()


def test_a_user_gets_the_same_alone_as_among_others(model: Model) -> None:
    memory, segments = some_memory(model), some_rows(model, model.segment_length)
    rows, lengths, exclude = some_rows(model, 3, seed=2), np.array([3, 0, 1, 2, 3]), excluding(1, 2)
    folded = fold(model, memory, segments)
    ranked, after_fold = recommend(model, memory, rows, lengths, 5, exclude), model.rank(folded.hidden, 5, exclude)
    for at in range(USERS):
        one = slice(at, at + 1)
        alone = fold(model, memory[one], segments[one])
        np.testing.assert_allclose(alone.memory, folded.memory[one], atol=SMALL)
        now = newest(model)
        list_alone = model.recommend(
            memory[one],
            rows[one],
            lengths[one],
            5,
            exclude[one],
            times_of(model, rows[one]),
            None if now is None else now[one],
        )
        np.testing.assert_array_equal(list_alone.rows, ranked.rows[one])
        np.testing.assert_allclose(list_alone.scores, ranked.scores[one], atol=SMALL)
        np.testing.assert_array_equal(model.rank(alone.hidden, 5, exclude[one]).rows, after_fold.rows[one])


@pytest.mark.parametrize("k", [1, 5, 1000])
def test_a_list_is_distinct_items_of_the_catalogue_best_first_with_what_is_excluded_at_minus_infinity(
    model: Model, k: int
) -> None:
    items = len(model.item_ids)
    exclude = excluding(1, 3, 0)  # 0 excludes nothing
    hidden = fold(model, some_memory(model), some_rows(model, model.segment_length)).hidden
    rows = some_rows(model, 3)
    for ranked in (
        recommend(model, some_memory(model), rows, np.full(USERS, 3), k, exclude),
        model.rank(hidden, k, exclude),
    ):
        assert ranked.rows.shape == ranked.scores.shape == (USERS, min(k, items))
        assert (ranked.rows.dtype, ranked.scores.dtype) == (np.int64, np.float32)
        for line, scores in zip(ranked.rows, ranked.scores, strict=True):
            assert len(set(line.tolist())) == len(line)
            assert set(line.tolist()) <= set(range(1, items + 1))
            assert (scores[:-1] >= scores[1:]).all()
            allowed = np.isfinite(scores)
            assert not set(line[allowed].tolist()) & {1, 3}
            assert allowed.sum() == min(k, items - 2)


def test_when_everything_is_excluded_no_score_is_finite(model: Model) -> None:
    everything = excluding(*range(1, len(model.item_ids) + 1))
    hidden = fold(model, some_memory(model), some_rows(model, model.segment_length)).hidden
    ranked = recommend(model, some_memory(model), some_rows(model, 3), np.full(USERS, 3), 5, everything)
    for scores in (ranked.scores, model.rank(hidden, 5, everything).scores):
        assert (scores == -np.inf).all()


def test_a_list_depends_on_the_memory_and_on_the_working_items_but_not_on_the_padding(model: Model) -> None:
    memory, rows = some_memory(model), some_rows(model, 3)
    two, everything = np.full(USERS, 2), len(model.item_ids)
    scores = recommend(model, memory, rows, two, everything, excluding(0)).scores
    padded = np.pad(rows[:, :2], ((0, 0), (0, 4)))
    np.testing.assert_allclose(
        recommend(model, memory, padded, two, everything, excluding(0)).scores, scores, atol=SMALL
    )
    order = recommend(model, memory, rows, two, everything, excluding(0)).rows
    without = recommend(model, nobody_has_a_memory(model), rows, two, everything, excluding(0)).rows
    other = recommend(model, memory, rows, np.full(USERS, 3), everything, excluding(0)).rows
    # For some users, as a fake has only as many lists as it has items.
    assert (without != order).any()
    assert (other != order).any()


def test_without_a_memory_and_an_item_everybody_gets_the_same_list(model: Model) -> None:
    nothing = np.zeros(USERS, np.int64)
    ranked = recommend(model, nobody_has_a_memory(model), some_rows(model, 3), nothing, 5, excluding(0))
    assert (ranked.rows == ranked.rows[0]).all()
    assert np.isfinite(ranked.scores).all()
