"""Asking many users at once is asking each as the worker would."""

import itertools

import numpy as np
import pytest

from model.evaluation import offline
from model.version.runtime import Runtime
from state.interaction import item_key
from state.user import Preference
from stream.recommender import Query, Recommender
from tests.model import tiny

L, V = tiny.L, tiny.V


@pytest.fixture(scope="module")
def histories() -> list[np.ndarray]:
    """Every length up to three segments and beyond, the row for unknown items among them; and one of unknown items
    only.
    """
    rng = np.random.default_rng(5)
    made = [
        np.where(rng.random(n) < 0.1, V + 1, rng.permutation(2 * V)[:n] % V + 1) for n in [*range(3 * L + 2), 5 * L]
    ]
    return [*made, np.full(L - 1, V + 1)]


def _asked_as_the_worker(runtime: Runtime, histories: list[np.ndarray], times: list[np.ndarray] | None) -> None:
    recommender = Recommender(runtime)
    ranked = offline.rank(runtime, offline.fold(runtime, histories, times), histories, 10, times)
    names = [*tiny.IDS, "somewhere-else"]
    for b, history in enumerate(histories):
        keys = np.array([item_key(names[row - 1]) for row in history], np.int64)
        ms = np.zeros_like(keys) if times is None else times[b]
        preference, hidden = None, None
        for h in range(len(history) // L):
            here = slice(h * L, (h + 1) * L)
            (made,) = recommender.fold([preference], [keys[here].tobytes()], [0], [ms[here].tobytes()])
            preference, hidden = made.preference, made.hidden
        rest = slice(len(history) // L * L, None)
        newest = int(ms[-1]) if len(ms) else 0
        query = Query(
            preference,
            keys[rest].tobytes(),
            keys.tobytes(),
            None if len(keys[rest]) else hidden,
            ms[rest].tobytes(),
            newest,
        )
        (want,) = recommender.recommend([query], 10)
        kept = np.isfinite(ranked.scores[b])
        assert [runtime.item_ids[row - 1] for row in ranked.rows[b][kept]] == want.items, len(history)
        np.testing.assert_allclose(ranked.scores[b][kept], want.scores, atol=5e-6)
        assert isinstance(preference, Preference | None)


def test_lists_are_those_of_the_worker(runtime: Runtime, histories: list[np.ndarray]) -> None:
    _asked_as_the_worker(runtime, histories, None)


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return Runtime.load(tiny.add(tmp_path_factory.mktemp("timed"), config=tiny.config("full", "pos_time")).folder)


def _days_apart(histories: list[np.ndarray]) -> list[np.ndarray]:
    return [1_700_000_000_000 + 86_400_000 * np.arange(len(history)) ** 2 for history in histories]


def test_lists_are_those_of_the_worker_where_the_model_goes_by_time(
    timed: Runtime, histories: list[np.ndarray]
) -> None:
    _asked_as_the_worker(timed, histories, _days_apart(histories))


def test_without_a_query_time_the_newest_item_s_stands_in_and_with_one_lists_go_by_it(
    timed: Runtime, histories: list[np.ndarray]
) -> None:
    """Also of users whose working memory is empty: their fold knew nothing of the query."""
    known = [history for history in histories if (history <= V).any()]
    times = _days_apart(known)
    states = offline.fold(timed, known, times)
    newest = np.array([each[-1] for each in times])
    unknowing, told, later = (
        offline.rank(timed, states, known, 10, times, at) for at in (None, newest, newest + 10**11)
    )
    np.testing.assert_allclose(unknowing.scores, told.scores, atol=5e-6)
    for b, history in enumerate(known):
        assert np.abs(later.scores[b] - told.scores[b]).max() > 1e-3, len(history)
    np.testing.assert_allclose(offline.fold_at_once(timed, known, times).hidden, states.hidden, atol=5e-6)


def test_a_list_of_the_whole_catalogue_has_every_item_that_the_user_did_not_have(
    runtime: Runtime, histories: list[np.ndarray]
) -> None:
    ranked = offline.rank(runtime, offline.fold(runtime, histories), histories, V)
    for b, history in enumerate(histories):
        assert set(ranked.rows[b][np.isfinite(ranked.scores[b])].tolist()) == set(range(1, V + 1)) - set(
            history.tolist()
        )


def test_one_call_takes_all_full_segments_of_each_user(runtime: Runtime, histories: list[np.ndarray]) -> None:
    states = offline.fold_at_once(runtime, histories)
    folded = offline.fold(runtime, histories)
    for b, history in enumerate(histories):
        n = len(history) // L * L
        if n == 0:
            assert not states.memory[b].any()
            continue
        alone = runtime.fold(np.zeros((1, runtime.state_floats), np.float32), history[None, :n])
        np.testing.assert_allclose(states.memory[b], alone.memory[0], atol=5e-6)
        np.testing.assert_allclose(states.hidden[b], alone.hidden[0], atol=5e-6)
        assert np.allclose(states.memory[b], folded.memory[b], atol=5e-6) == (n == L)


def test_ranks_count_from_one_and_leave_out_what_was_excluded() -> None:
    ranked = offline.Ranked(
        np.array([[3, 1, 2], [3, 1, 2], [3, 1, 2], [3, 1, 2]]), np.array([[0.5, 0.1, -np.inf]] * 4, np.float32)
    )
    assert offline.target_ranks(ranked, np.array([3, 1, 2, 4])).tolist() == [1, 2, np.inf, np.inf]


def test_catalogue_rows_know_items_by_their_text(runtime: Runtime) -> None:
    assert offline.catalogue_rows(runtime, ["item-2", 5, "item-1"]).tolist() == [2, V + 1, 1]


def test_users_together_are_alike_and_no_more_than_fit() -> None:
    lengths = np.random.default_rng(0).integers(0, 900, 1_000)
    groups = offline.batches(lengths, 1_000)
    assert sorted(np.concatenate(groups).tolist()) == list(range(1_000))
    assert max(map(len, groups)) == offline.USERS
    assert all(lengths[a].max() <= lengths[b].min() for a, b in itertools.pairwise(groups))
    assert max(map(len, offline.batches(lengths, 4_000_000))) == 4


def test_nobody_is_no_work(runtime: Runtime) -> None:
    states = offline.fold(runtime, [])
    assert states.memory.shape == (0, runtime.state_floats)
