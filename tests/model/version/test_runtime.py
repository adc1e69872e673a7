import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ModelFailed
from model.version import artifact
from model.version.registry import ModelVersion
from model.version.runtime import CHUNK, Runtime
from tests.model import tiny

L = tiny.L
V = tiny.V


def _none(users: int) -> np.ndarray:
    return np.zeros((users, 0), np.int64)


def test_it_says_what_it_is(runtime: Runtime, version: ModelVersion) -> None:
    assert runtime.reference == "tiny@1"
    assert runtime.item_ids == tiny.IDS
    assert (runtime.oov_row, runtime.segment_length, runtime.state_floats) == (V + 1, L, 48)
    assert Runtime.load(version.uri, version.digest()).manifest == runtime.manifest == version.manifest()


def test_a_big_batch_equals_its_users_one_by_one(runtime: Runtime) -> None:
    users = 2 * CHUNK + 3
    rng = np.random.default_rng(0)
    rows = rng.integers(1, V + 2, (users, L))
    memory = runtime.fold(np.zeros((users, runtime.state_floats), np.float32), rows).memory
    memory[rng.random(users) < 0.3] = 0
    lengths = rng.integers(0, L + 1, users)
    working = np.where(np.arange(L) < lengths[:, None], rng.integers(1, V + 2, (users, L)), 0)
    exclude = rng.integers(0, V + 2, (users, 6))
    folded, ranked = runtime.fold(memory, rows), runtime.recommend(memory, working, lengths, 5, exclude)
    from_hidden = runtime.rank(folded.hidden, 5, exclude)
    for b in range(0, users, 7):
        one = slice(b, b + 1)
        alone = runtime.fold(memory[one], rows[one])
        np.testing.assert_allclose(alone.memory[0], folded.memory[b], atol=5e-6)
        np.testing.assert_allclose(alone.hidden[0], folded.hidden[b], atol=5e-6)
        best = runtime.recommend(memory[one], working[one], lengths[one], 5, exclude[one])
        np.testing.assert_array_equal(best.rows[0], ranked.rows[b])
        np.testing.assert_allclose(best.scores[0], ranked.scores[b], atol=5e-6)
        np.testing.assert_array_equal(runtime.rank(alone.hidden, 5, exclude[one]).rows[0], from_hidden.rows[b])


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(0, L), min_size=0, max_size=6),
    known=st.lists(st.booleans(), min_size=6, max_size=6),
    k=st.integers(1, V + 3),
    excluded=st.integers(0, V + 5),
)
def test_every_list_is_full_distinct_descending_and_free_of_excluded_items(
    runtime: Runtime, lengths: list[int], known: list[bool], k: int, excluded: int
) -> None:
    users = len(lengths)
    rng = np.random.default_rng(1)
    memory = np.zeros((users, runtime.state_floats), np.float32)
    if users:
        memory = (
            runtime.fold(memory, rng.integers(1, V + 2, (users, L))).memory
            * np.array(known[:users], np.float32)[:, None]
        )
    exclude = rng.integers(0, V + 2, (users, excluded))
    ranked = runtime.recommend(memory, rng.integers(1, V + 2, (users, L)), np.array(lengths, np.int64), k, exclude)
    assert ranked.rows.shape == ranked.scores.shape == (users, min(k, V))
    for b in range(users):
        allowed = set(range(1, V + 1)) - set(exclude[b].tolist())
        real = ranked.rows[b][np.isfinite(ranked.scores[b])].tolist()
        assert len(set(ranked.rows[b].tolist())) == min(k, V)
        assert set(real) <= allowed
        assert len(real) == min(k, len(allowed))
        assert (np.diff(ranked.scores[b][: len(real)]) <= 0).all()


def test_no_users_are_no_work(runtime: Runtime) -> None:
    memory = np.zeros((0, runtime.state_floats), np.float32)
    assert runtime.fold(memory, np.zeros((0, L), np.int64)).memory.shape == (0, runtime.state_floats)
    assert runtime.recommend(memory, np.zeros((0, 3), np.int64), np.zeros(0, np.int64), 4, _none(0)).rows.shape == (
        0,
        4,
    )


@pytest.mark.parametrize("writable", [True, False])
def test_arguments_are_left_as_they_were(runtime: Runtime, writable: bool) -> None:
    memory, rows = np.ones((2, runtime.state_floats), np.float32), np.full((2, L), 3)
    memory.flags.writeable = rows.flags.writeable = writable
    runtime.fold(memory, rows)
    runtime.recommend(memory, rows, np.array([2, 3]), 4, rows)
    assert (memory == 1).all()
    assert (rows == 3).all()


class Program:
    """A program that goes wrong in the way it is told to, over one that does not."""

    def __init__(
        self, sound: torch.jit.ScriptModule, *, memory: float = 0.0, hidden: float = 0.0, score: float = 0.0
    ) -> None:
        self._sound = sound
        self._memory, self._hidden, self._score = memory, hidden, score

    def __getattr__(self, name: str) -> object:
        return getattr(self._sound, name)

    def update(self, *given: object) -> tuple[torch.Tensor, torch.Tensor]:
        memory, hidden = self._sound.update(*given)
        return memory + self._memory, hidden + self._hidden

    def encode_prefixes(self, *given: object) -> torch.Tensor:
        return self._sound.encode_prefixes(*given) + self._hidden  # type: ignore[no-any-return]

    def recommend(self, *given: object) -> tuple[torch.Tensor, torch.Tensor]:
        rows, scores = self._sound.recommend(*given)
        return rows, scores + self._score

    def rank(self, *given: object) -> tuple[torch.Tensor, torch.Tensor]:
        rows, scores = self._sound.rank(*given)
        return rows, scores + self._score


def _wrong(version: ModelVersion, **how: float) -> Runtime:
    loaded = artifact.load(version.uri)
    return Runtime(replace(loaded, program=Program(loaded.program, **how)))


@pytest.mark.parametrize("wrong", [{"memory": math.nan}, {"memory": math.inf}, {"hidden": math.nan}], ids=str)
def test_a_fold_that_is_not_finite_is_a_failure_of_the_model(version: ModelVersion, wrong: dict[str, float]) -> None:
    """It would be stored, and every list of the user after it would be wrong."""
    runtime = _wrong(version, **wrong)
    with pytest.raises(ModelFailed, match="tiny@1 failed in update: the answer has numbers that are not finite"):
        runtime.fold(np.zeros((1, runtime.state_floats), np.float32), np.full((1, L), 3))


def test_prefixes_of_a_big_batch_are_those_of_its_users_one_by_one(runtime: Runtime) -> None:
    users = CHUNK + 3
    drawn = np.random.default_rng(0)
    memory = runtime.fold(
        np.zeros((users, runtime.state_floats), np.float32), drawn.integers(1, V + 2, (users, L))
    ).memory
    memory[drawn.random(users) < 0.3] = 0
    lengths = drawn.integers(1, L + 1, users)
    rows = np.where(np.arange(L) < lengths[:, None], drawn.integers(1, V + 2, (users, L)), 0)
    hidden = runtime.encode_prefixes(memory, rows, lengths)
    assert (hidden.any(axis=2) == (np.arange(L) < lengths[:, None])).all()
    for b in range(0, users, 5):
        one, n = slice(b, b + 1), lengths[b]
        alone = runtime.encode_prefixes(memory[one], rows[one, :n], lengths[one])
        np.testing.assert_allclose(alone[0], hidden[b, :n], atol=5e-6)
        ranked, expected = (
            runtime.rank(hidden[one, n - 1], 5, _none(1)),
            runtime.recommend(memory[one], rows[one], lengths[one], 5, _none(1)),
        )
        np.testing.assert_array_equal(ranked.rows, expected.rows)
    assert runtime.encode_prefixes(memory[:0], rows[:0], lengths[:0]).shape == (0, L, tiny.CONFIG.shape.d)


def test_prefixes_that_are_not_finite_are_a_failure_of_the_model(version: ModelVersion) -> None:
    runtime = _wrong(version, hidden=math.nan)
    with pytest.raises(
        ModelFailed, match="tiny@1 failed in encode_prefixes: the answer has numbers that are not finite"
    ):
        runtime.encode_prefixes(np.zeros((1, runtime.state_floats), np.float32), np.full((1, L), 3), np.array([2]))


def test_scores_that_are_no_numbers_are_a_failure_of_the_model(version: ModelVersion) -> None:
    runtime = _wrong(version, score=math.nan)
    memory = np.zeros((1, runtime.state_floats), np.float32)
    with pytest.raises(ModelFailed, match="tiny@1 failed in recommend: the answer has scores that are not numbers"):
        runtime.recommend(memory, np.full((1, L), 3), np.array([2]), 4, _none(1))
    with pytest.raises(ModelFailed, match="tiny@1 failed in rank: the answer has scores that are not numbers"):
        runtime.rank(np.zeros((1, tiny.CONFIG.shape.d), np.float32), 4, _none(1))


def test_what_a_program_raises_is_a_failure_of_the_model_by_its_last_line(
    version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError(
            "The following operation failed in the TorchScript interpreter.\nthe whole program\nRuntimeError: sizes differ"
        )

    monkeypatch.setattr(Program, "update", fails)
    runtime = _wrong(version)
    with pytest.raises(ModelFailed) as failed:
        runtime.fold(np.zeros((1, runtime.state_floats), np.float32), np.full((1, L), 3))
    assert str(failed.value) == "tiny@1 failed in update: RuntimeError: sizes differ"
