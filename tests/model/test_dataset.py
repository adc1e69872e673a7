import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import dataset, validation
from model.errors import TrainingImpossible

L, K = 5, 3


def _log(lengths: list[int], seed: int = 0) -> pl.LazyFrame:
    rng = np.random.default_rng(seed)
    user = rng.permutation(np.repeat(np.arange(len(lengths)), lengths))
    return pl.LazyFrame({"user_id": user, "item_id": rng.integers(0, 30, len(user)), "timestamp": np.arange(len(user)) // 3 * 1000})


def _load(log: pl.LazyFrame, **changed: float) -> dataset.Dataset:
    return dataset.load(log, **({"until_share": 1.0, "validation_share": 0.2, "min_item_count": 2} | changed))  # type: ignore[arg-type]


def test_the_latest_interactions_are_held_out_and_teach_nothing() -> None:
    log = _log([30, 12, 40, 3]).collect()
    data = _load(log.lazy())
    held_out = round(len(log) * 0.2)
    assert data.trained.sum() == len(log) - held_out
    # Whatever happens in the held-out part, what is learned from stays the same.
    other = log.with_columns(item_id=pl.when(pl.int_range(pl.len()) < len(log) - held_out).then("item_id").otherwise(pl.lit(999)))
    changed = _load(other.lazy())
    assert changed.item_ids == data.item_ids
    assert (changed.popularity == data.popularity).all()
    assert (changed.from_ms, changed.until_ms) == (data.from_ms, data.until_ms)
    for windows, windows_changed in zip(*(_epoch(d) for d in (data, changed)), strict=True):
        assert (windows.items == windows_changed.items).all()
        assert (windows.targets == windows_changed.targets).all()


def test_what_comes_after_until_is_not_seen_at_all() -> None:
    log = _log([30, 12, 40, 3]).collect()
    first_half = _load(log.lazy(), until_share=0.5)
    assert len(first_half.rows) == round(len(log) / 2)
    np.testing.assert_array_equal(first_half.rows, _load(log.head(round(len(log) / 2)).lazy()).rows)


def test_rows_are_in_the_order_of_popularity_and_rare_items_are_unknown() -> None:
    log = pl.LazyFrame({"user_id": [1, 2] * 5, "item_id": list("aaabbcdddd"), "timestamp": range(10)})
    data = dataset.load(log, until_share=1.0, validation_share=0.01, min_item_count=2)
    assert data.item_ids == ("d", "a", "b")
    np.testing.assert_allclose(data.popularity, [0, 0.4, 0.3, 0.2])
    assert sorted(data.rows.tolist()) == [1, 1, 1, 1, 2, 2, 2, 3, 3, 4]
    np.testing.assert_array_equal(data.history(0), [2, 2, 3, 1, 1])


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=2, max_size=8), seed=st.integers(0, 5))
def test_windows_are_pieces_of_training_histories(lengths: list[int], seed: int) -> None:
    lengths[0] += 5
    lengths[1] += 5
    data = _load(_log(lengths, seed), min_item_count=1)
    histories = [data.history(u)[: data.trained[u]] for u in range(len(data.trained))]
    pieces = {tuple(h[i : i + n].tolist()) for h in histories for n in range(1, K * L + 2) for i in range(len(h) - n + 1)}
    for windows in _epoch(data, seed):
        assert windows.items.shape == windows.targets.shape
        assert windows.items.shape[1] % L == 0
        assert windows.items.shape[1] <= K * L
        for items, targets in zip(windows.items, windows.targets, strict=True):
            n = int((items != 0).sum())
            assert (items[:n] != 0).all()
            assert (targets[n:] == 0).all()
            assert (*items[:n].tolist(), int(targets[n - 1])) in pieces
            np.testing.assert_array_equal(items[1:n], targets[: n - 1])


def test_a_share_of_the_inputs_and_no_target_is_the_row_for_unknown_items() -> None:
    data = _load(_log([60] * 30), min_item_count=1)
    batches = list(dataset.epoch(data, np.random.default_rng(0), segment_length=L, segments=K, batch=4, oov_share=0.2))
    inputs = np.concatenate([w.items[w.items != 0] for w in batches])
    assert 0.15 < (inputs == data.oov_row).mean() < 0.25
    assert all((w.targets != data.oov_row).all() for w in batches)


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (
            pl.LazyFrame(
                {"user_id": [], "item_id": [], "timestamp": []}, schema={"user_id": pl.Int64, "item_id": pl.Int64, "timestamp": pl.Int64}
            ),
            "0 int",
        ),
        (_log([40]), "one user"),
        (pl.LazyFrame({"user_id": [1, 2] * 10, "item_id": range(20), "timestamp": range(20)}), "0 items were seen 2 times"),
    ],
)
def test_a_log_nothing_can_be_learned_from_is_refused(log: pl.LazyFrame, message: str) -> None:
    with pytest.raises(TrainingImpossible, match=message):
        _load(log)


def test_validation_targets_are_held_out_have_a_history_and_spread_over_users() -> None:
    data = _load(_log([60, 60, 5, 30]))
    targets = validation.choose(data, np.random.default_rng(0), 1_000, L)
    assert (targets.position >= data.trained[targets.user]).all()
    assert (targets.position >= 1).all()
    assert len(targets.user) == sum(max(0, len(data.history(u)) - max(1, data.trained[u])) for u in range(4))
    few = validation.choose(data, np.random.default_rng(0), 3, L)
    assert len(set(few.user.tolist())) == 3


def _epoch(data: dataset.Dataset, seed: int = 0) -> list[dataset.Windows]:
    return list(dataset.epoch(data, np.random.default_rng(seed), segment_length=L, segments=K, batch=2, oov_share=0.0))
