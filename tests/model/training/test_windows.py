from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.training.dataset import Dataset
from model.training.windows import Batch, Windows
from tests.model.training.test_dataset import loaded, random_log

L, K = 5, 3


class _Interaction(NamedTuple):
    user_id: int
    item_id: int
    timestamp: int


def _windows(data: Dataset, **changed: object) -> Windows:
    usual: dict[str, object] = {"segment_length": L, "segments": K, "batch": 2, "placed": "anywhere", "oov_share": 0.0}
    return Windows(dataset=data, **(usual | {"negatives": 4, "negative_mode": "shared", "seed": 0} | changed))  # type: ignore[arg-type]


def _epoch(windows: Windows, number: int = 1) -> list[Batch]:
    batches = [windows.cut(plan, number, at) for at, plan in enumerate(windows.epoch(number))]
    return [batch for batch in batches if batch is not None]


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=2, max_size=8), seed=st.integers(0, 5))
def test_windows_are_pieces_of_training_histories(lengths: list[int], seed: int) -> None:
    lengths[0] += 5
    lengths[1] += 5
    data = loaded(random_log(lengths, seed), min_item_count=1)
    histories = [data.history(u)[: data.trained[u]] for u in range(len(data.trained))]
    pieces = {
        tuple(h[i : i + n].tolist()) for h in histories for n in range(1, K * L + 2) for i in range(len(h) - n + 1)
    }
    for batch in _epoch(_windows(data, seed=seed)):
        assert batch.items.shape == batch.targets.shape
        assert batch.items.shape[1] % L == 0
        assert batch.items.shape[1] <= K * L
        assert len(batch) * (batch.items.shape[1] // L) <= 2 * K
        for items, targets in zip(batch.items, batch.targets, strict=True):
            n = int((items != 0).sum())
            assert (items[:n] != 0).all()
            assert (targets[n:] == 0).all()
            assert (*items[:n].tolist(), int(targets[n - 1])) in pieces
            np.testing.assert_array_equal(items[1:n], targets[: n - 1])


def test_every_user_with_a_next_item_is_in_every_epoch_and_longer_ones_more_often() -> None:
    data = loaded(random_log([60, 2, 7, 200, 40]), min_item_count=1)
    users = np.concatenate([plan[:, 0] for plan in _windows(data).epoch(1)])
    assert set(users.tolist()) == set(np.flatnonzero(data.trained >= 2).tolist())
    assert (users == 3).sum() == data.trained[3] // (K * L)


def test_the_newest_windows_end_where_training_ends_once_a_user() -> None:
    data = loaded(random_log([60, 4, 17, 40]), min_item_count=1)
    plans = np.concatenate(_windows(data, placed="newest").epoch(1))
    assert sorted(plans[:, 0].tolist()) == [0, 1, 2, 3]
    for user, first, inputs in plans:
        assert first + inputs + 1 == data.trained[user]
        assert inputs == min(K * L, data.trained[user] - 1)


def test_a_share_of_the_inputs_and_no_target_is_the_row_for_unknown_items() -> None:
    data = loaded(random_log([60] * 30), min_item_count=1)
    batches = _epoch(_windows(data, batch=4, oov_share=0.2))
    inputs = np.concatenate([batch.items[batch.items != 0] for batch in batches])
    assert 0.15 < (inputs == data.oov_row).mean() < 0.25
    assert all((batch.targets != data.oov_row).all() for batch in batches)


def test_windows_without_a_target_are_left_out() -> None:
    rows = np.array([3, 3, 3, 3, 1, 2, 1, 2])  # the first user's items are all unknown
    data = Dataset((7, 8), np.zeros(3, np.float32), rows, np.array([0, 4, 8]), np.array([4, 4]), 0, 0)
    (batch,) = _epoch(_windows(data))
    assert batch.items.tolist() == [[1, 2, 1, 0, 0]]
    alone = Dataset((7, 8), np.zeros(3, np.float32), rows[:4], np.array([0, 4]), np.array([4]), 0, 0)
    assert _epoch(_windows(alone)) == []


@pytest.mark.parametrize("placed", ["anywhere", "newest"])
def test_windows_carry_the_time_of_every_item_and_of_the_last_target(placed: str) -> None:
    lengths = [60, 2, 7, 40]
    log = random_log(lengths).with_columns(
        timestamp=pl.int_range(pl.len()) * 1_000
    )  # no two at once: a time says which interaction it is
    data = loaded(log, min_item_count=1, with_times=True)
    ids = {row.timestamp: row.item_id for row in map(_Interaction._make, log.collect().rows())}
    for batch in _epoch(_windows(data, placed=placed)):
        assert batch.times is not None
        assert batch.times.shape == (len(batch), batch.items.shape[1] + 1)
        for items, targets, times in zip(batch.items, batch.targets, batch.times, strict=True):
            n = int((items != 0).sum())
            assert [data.item_ids[row - 1] for row in (*items[:n], targets[n - 1])] == [
                ids[int(ms)] for ms in times[: n + 1]
            ]
            assert (np.diff(times[: n + 1]) > 0).all()
    assert all(batch.times is None for batch in _epoch(_windows(loaded(log, min_item_count=1))))


def test_windows_without_a_target_take_their_times_with_them() -> None:
    rows, times = np.array([3, 3, 3, 3, 1, 2, 1, 2]), np.arange(8) * 1_000
    data = Dataset((7, 8), np.zeros(3, np.float32), rows, np.array([0, 4, 8]), np.array([4, 4]), 0, 0, times)
    (batch,) = _epoch(_windows(data))
    assert batch.times is not None
    assert batch.times[0, :4].tolist() == [4_000, 5_000, 6_000, 7_000]


def test_any_batch_can_be_cut_without_those_before_it() -> None:
    data = loaded(random_log([60] * 10), min_item_count=1)
    windows = _windows(data, oov_share=0.3)
    first, again = _epoch(windows, 3), windows.cut(windows.epoch(3)[2], 3, 2)
    assert again is not None
    np.testing.assert_array_equal(again.items, first[2].items)
    np.testing.assert_array_equal(again.negatives, first[2].negatives)
    assert any((a.shape != b.shape) or (a != b).any() for a, b in zip(windows.epoch(3), windows.epoch(4), strict=True))


@pytest.mark.parametrize("mode", ["shared", "position"])
def test_negatives_are_items_of_the_catalogue(mode: str) -> None:
    data = loaded(random_log([60] * 10), min_item_count=1)
    for batch in _epoch(_windows(data, negative_mode=mode, negatives=50)):
        assert batch.negatives.shape == ((50,) if mode == "shared" else (*batch.items.shape, 50))
        assert set(np.unique(batch.negatives)) <= set(range(1, len(data.item_ids) + 1))
