from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from model.errors import TrainingImpossible
from model.log import read_log
from model.training import dataset, encoded_log, validation
from model.version.attributes import Attributes

L = 5


def random_log(lengths: list[int], seed: int = 0) -> pl.LazyFrame:
    rng = np.random.default_rng(seed)
    user = rng.permutation(np.repeat(np.arange(len(lengths)), lengths))
    return pl.LazyFrame(
        {"user_id": user, "item_id": rng.integers(0, 30, len(user)), "timestamp": np.arange(len(user)) // 3 * 1000}
    )


def loaded(log: pl.LazyFrame, **changed: Any) -> dataset.Dataset:
    return dataset.load(log, **({"until_share": 1.0, "validation_share": 0.2, "min_item_count": 2} | changed))


def test_the_latest_interactions_are_held_out_and_teach_nothing() -> None:
    log = random_log([30, 12, 40, 3]).collect()
    data = loaded(log.lazy())
    held_out = round(len(log) * 0.2)
    assert data.trained.sum() == len(log) - held_out
    # Whatever happens in the held-out part, what is learned from stays the same.
    other = log.with_columns(
        item_id=pl.when(pl.int_range(pl.len()) < len(log) - held_out).then("item_id").otherwise(pl.lit(999))
    )
    changed = loaded(other.lazy())
    assert changed.item_ids == data.item_ids
    assert (changed.popularity == data.popularity).all()
    assert (changed.from_ms, changed.until_ms) == (data.from_ms, data.until_ms)
    assert (changed.trained == data.trained).all()
    for user in range(4):
        n = data.trained[user]
        np.testing.assert_array_equal(changed.history(user)[:n], data.history(user)[:n])


def test_what_comes_after_until_is_not_seen_at_all() -> None:
    log = random_log([30, 12, 40, 3]).collect()
    first_half = loaded(log.lazy(), until_share=0.5)
    assert len(first_half.rows) == round(len(log) / 2)
    np.testing.assert_array_equal(first_half.rows, loaded(log.head(round(len(log) / 2)).lazy()).rows)


def test_rows_are_in_the_order_of_popularity_and_rare_items_are_unknown() -> None:
    log = pl.LazyFrame({"user_id": [1, 2] * 5, "item_id": list("aaabbcdddd"), "timestamp": range(10)})
    data = dataset.load(log, until_share=1.0, validation_share=0.01, min_item_count=2)
    assert data.item_ids == ("d", "a", "b")
    np.testing.assert_allclose(data.popularity, [0, 0.4, 0.3, 0.2])
    assert sorted(data.rows.tolist()) == [1, 1, 1, 1, 2, 2, 2, 3, 3, 4]
    np.testing.assert_array_equal(data.history(0), [2, 2, 3, 1, 1])


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (
            pl.LazyFrame(
                {"user_id": [], "item_id": [], "timestamp": []},
                schema={"user_id": pl.Int64, "item_id": pl.Int64, "timestamp": pl.Int64},
            ),
            "0 int",
        ),
        (random_log([40]), "one user"),
        (
            pl.LazyFrame({"user_id": [1, 2] * 10, "item_id": range(20), "timestamp": range(20)}),
            "the training part has 16 items, 0 of them with at least 2 interactions",
        ),
    ],
)
def test_a_log_nothing_can_be_learned_from_is_refused(log: pl.LazyFrame, message: str) -> None:
    with pytest.raises(TrainingImpossible, match=message):
        loaded(log)


def test_validation_targets_are_held_out_have_a_history_and_spread_over_users() -> None:
    data = loaded(random_log([60, 60, 5, 30]))
    targets = validation.choose(data, np.random.default_rng(0), 1_000, L)
    assert (targets.position >= data.trained[targets.user]).all()
    assert (targets.position >= 1).all()
    assert len(targets.user) == sum(max(0, len(data.history(u)) - max(1, data.trained[u])) for u in range(4))
    few = validation.choose(data, np.random.default_rng(0), 3, L)
    assert len(set(few.user.tolist())) == 3


def _expected(
    log: pl.DataFrame, until_share: float, validation_share: float, split: str
) -> tuple[list[list[int]], list[int]]:
    """Histories and lengths of training parts, the plain way."""
    log = log.sort("timestamp", maintain_order=True).head(round(len(log) * until_share))
    n_trained = len(log) - round(len(log) * validation_share)
    histories: dict[int, list[int]] = {}
    trained: dict[int, int] = {}
    for at, (user, item, _) in enumerate(log.rows()):
        histories.setdefault(user, []).append(item)
        trained[user] = trained.get(user, 0) + (at < n_trained)
    if split == "last-out":
        return [histories[u][:-1] for u in sorted(histories)], [
            max(0, len(histories[u]) - 2) for u in sorted(histories)
        ]
    return [histories[u] for u in sorted(histories)], [trained[u] for u in sorted(histories)]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 300)), min_size=12, max_size=60),
    scale=st.sampled_from([0, 1, 10**9]),
    shares=st.tuples(st.floats(0.3, 1.0), st.floats(0.05, 0.6)),
    split=st.sampled_from(["time", "last-out"]),
    piece=st.sampled_from([1, 3, 1000]),
)
def test_histories_are_those_of_the_sorted_log_however_it_is_cut_into_pieces(
    rows: list[tuple[int, int, int]], scale: int, shares: tuple[float, float], split: str, piece: int
) -> None:
    log = pl.DataFrame(
        [(u, i, t * scale) for u, i, t in rows], schema=["user_id", "item_id", "timestamp"], orient="row"
    )
    histories, trained = _expected(log, *shares, split)
    assume(sum(n > 0 for n in trained) >= 2)
    assume(len({item for history, n in zip(histories, trained, strict=True) for item in history[:n]}) >= 2)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(encoded_log, "PIECE", piece)
        data = loaded(log.lazy(), min_item_count=1, until_share=shares[0], validation_share=shares[1], split=split)
    there = sorted(set(log.sort("timestamp", maintain_order=True).head(round(len(log) * shares[0]))["user_id"]))
    users = [sorted(set(log["user_id"])).index(user) for user in there]
    for user, history, n in zip(users, histories, trained, strict=True):
        assert data.trained[user] == n
        assert [data.item_ids[row - 1] if row < data.oov_row else None for row in data.history(user)] == [
            item if item in data.item_ids else None for item in history
        ]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 3), st.sampled_from([None, "a", "b", "c"])),
        min_size=12,
        max_size=50,
    ),
    split=st.sampled_from(["time", "last-out"]),
    piece=st.sampled_from([1, 3, 1000]),
)
def test_an_items_attribute_is_its_most_frequent_value_in_the_training_part(
    rows: list[tuple[int, int, str | None]], split: str, piece: int
) -> None:
    log = pl.DataFrame(
        rows, schema={"user_id": pl.Int64, "item_id": pl.Int64, "attribute": pl.String}, orient="row"
    ).with_row_index("timestamp")
    plain = log.drop("attribute")
    histories, trained = _expected(plain.select("user_id", "item_id", "timestamp"), 1.0, 0.3, split)
    assume(sum(n > 0 for n in trained) >= 2)
    assume(len({item for history, n in zip(histories, trained, strict=True) for item in history[:n]}) >= 2)
    each = log.partition_by("user_id", maintain_order=True)
    each.sort(key=lambda of_user: of_user["user_id"][0])
    seen: dict[int, Counter[str]] = {}
    for of_user, n in zip(each, trained, strict=True):
        for item, value in of_user.head(n).select("item_id", "attribute").rows():
            seen.setdefault(item, Counter()).update([] if value is None else [value])
    expected = {item: min(counts, key=lambda value: (-counts[value], value)) for item, counts in seen.items() if counts}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(encoded_log, "PIECE", piece)
        given = {"min_item_count": 1, "validation_share": 0.3, "split": split}
        data, without = loaded(log.lazy(), **given), loaded(plain.lazy(), **given)
    assert data.attributes is not None
    assert data.attributes.by_item(data.item_ids) == {str(item): value for item, value in expected.items()}
    assert data.attributes.values == tuple(sorted(set(expected.values())))
    # Everything else is as without attributes.
    assert (data.item_ids, without.attributes) == (without.item_ids, None)
    for name in ("rows", "start", "trained", "popularity"):
        np.testing.assert_array_equal(getattr(data, name), getattr(without, name))


def test_attributes_are_part_of_what_training_depends_on_and_stay_in_the_folder(tmp_path: Path) -> None:
    log = random_log([30, 12, 40, 3])
    odd = log.with_columns(attribute=pl.col("item_id") % 2)
    data = loaded(odd, folder=tmp_path)
    assert (
        dataset.opened(tmp_path).attributes
        == data.attributes
        == Attributes((0, 1), tuple(1 + int(item) % 2 for item in data.item_ids))
    )
    digests = {each.digest() for each in (data, loaded(log), loaded(log.with_columns(attribute=pl.col("item_id") % 3)))}
    assert len(digests) == 3


def test_known_items_keep_their_attribute_where_the_log_has_none_for_them() -> None:
    log = pl.LazyFrame({"user_id": [1, 2] * 6, "item_id": list("aaabbbccccdd"), "timestamp": range(12)})
    log = log.with_columns(attribute=pl.col("item_id").replace_strict({"a": 30, "b": None, "c": 20, "d": 10}))
    known = Attributes(("7", "20", "8"), (1, 2, 3, 3))
    data = dataset.load(
        log, validation_share=0.01, min_item_count=3, known=["a", "b", "x", "y"], known_attributes=known
    )
    assert data.item_ids == ("c", "a", "b", "x", "y")
    assert data.attributes is not None
    # Of this log, and then those that only the earlier version knows; d has no row, so its 10 is nobody's.
    assert data.attributes.values == (20, 30, "7", "8")
    assert data.attributes.of == (1, 2, 1, 4, 4)
    np.testing.assert_array_equal(data.attributes.by_row(), [0, 1, 2, 1, 4, 4, 0])


def test_last_out_shows_nobodys_last_interaction_and_validates_on_the_one_before() -> None:
    data = loaded(random_log([30, 12, 1, 2, 3]), split="last-out", min_item_count=1)
    assert np.diff(data.start).tolist() == [29, 11, 0, 1, 2]
    assert data.trained.tolist() == [28, 10, 0, 0, 1]
    targets = validation.choose(data, np.random.default_rng(0), 100, L)
    assert dict(zip(targets.user.tolist(), targets.position.tolist(), strict=True)) == {0: 28, 1: 10, 4: 1}


def test_a_folder_keeps_the_same_dataset(tmp_path: Path) -> None:
    log = random_log([30, 12, 40, 3])
    in_memory, on_disk = loaded(log), loaded(log, folder=tmp_path)
    again = dataset.opened(tmp_path)
    assert isinstance(again.rows, np.memmap)
    for data in (on_disk, again):
        assert data.item_ids == in_memory.item_ids
        assert (data.from_ms, data.until_ms) == (in_memory.from_ms, in_memory.until_ms)
        for name in ("rows", "start", "trained", "popularity"):
            np.testing.assert_array_equal(getattr(data, name), getattr(in_memory, name))
        assert data.digest() == in_memory.digest()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "dataset.json",
        "popularity.npy",
        "rows.npy",
        "start.npy",
        "trained.npy",
    ]
    assert loaded(random_log([30, 12, 40, 3], seed=1)).digest() != in_memory.digest()


def test_times_are_kept_where_they_are_asked_for_beside_the_rows_they_belong_to(tmp_path: Path) -> None:
    log = random_log([30, 12, 40, 3]).with_columns(timestamp=(pl.int_range(pl.len()) * 7) % 83 * 1_000)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(encoded_log, "PIECE", 7)
        data = loaded(log, with_times=True, folder=tmp_path)
    again, without = dataset.opened(tmp_path), loaded(log)
    assert isinstance(again.times, np.memmap)
    assert without.times is None
    plain = log.collect().sort("timestamp", maintain_order=True)
    for user in range(4):
        expected = plain.filter(pl.col("user_id") == user)["timestamp"].to_list()
        assert data.history_ms(user).tolist() == again.history_ms(user).tolist() == expected
        np.testing.assert_array_equal(data.history(user), without.history(user))
    assert data.digest() == again.digest() != without.digest()
    held_out = loaded(log, with_times=True, split="last-out")
    assert held_out.history_ms(0).tolist() == plain.filter(pl.col("user_id") == 0)["timestamp"].to_list()[:-1]


def test_the_log_is_never_in_memory_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.csv"
    rng = np.random.default_rng(0)
    n = 5_000
    pl.DataFrame(
        {
            "user_id": rng.integers(0, 50, n),
            "item_id": rng.integers(0, 40, n),
            "timestamp": 1_700_000_000 + np.arange(n),
        }
    ).write_csv(path)
    heights: list[int] = []
    collect = pl.LazyFrame.collect

    def watched(self: pl.LazyFrame, **how: Any) -> Any:
        assert how.get("engine") == "streaming", "the in-memory engine reads whole columns"
        found = collect(self, **how)
        heights.append(found.height)
        return found

    monkeypatch.setattr(pl.LazyFrame, "collect", watched)
    monkeypatch.setattr(encoded_log, "PIECE", 500)
    data = loaded(read_log(path), folder=tmp_path)
    assert len(data.rows) == n
    assert max(heights) <= 500


def test_known_items_keep_a_row_though_the_log_has_them_seldom_or_not() -> None:
    log = pl.LazyFrame({"user_id": [1, 2] * 6, "item_id": list("aaabbcddddee"), "timestamp": range(12)})
    data = dataset.load(log, validation_share=0.01, min_item_count=3, known=["x", "c", "a"])
    assert data.item_ids == ("d", "a", "c", "x")
    np.testing.assert_allclose(data.popularity, np.array([0, 4, 3, 1, 0]) / 12)
    numbers = dataset.load(
        log.with_columns(item_id=pl.Series([1, 1, 1, 2, 2, 3, 4, 4, 4, 4, 5, 5])), min_item_count=3, known=["3", "77"]
    )
    assert numbers.item_ids == (4, 1, 3, "77")


@given(
    known=st.lists(st.integers(0, 40), unique=True, min_size=2, max_size=12),
    seed=st.integers(0, 50),
    as_text=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_kept_rows_change_the_numbers_of_items_and_nothing_else(known: list[int], seed: int, as_text: bool) -> None:
    log = random_log([20, 12, 30, 5], seed)
    before: list[int | str] = [str(item) if as_text else item for item in known]
    usual, kept = (loaded(log, known=before, keep_rows=keep) for keep in (False, True))
    assert [str(item) for item in kept.item_ids[: len(known)]] == [str(item) for item in known]
    new = [item for item in usual.item_ids if str(item) not in {str(each) for each in known}]
    assert list(kept.item_ids[len(known) :]) == new  # the most popular of the new ones first
    assert dict(zip(kept.item_ids, kept.popularity[1:], strict=True)) == dict(
        zip(usual.item_ids, usual.popularity[1:], strict=True)
    )
    for user in range(4):
        items = [
            ["oov" if row == each.oov_row else each.item_ids[row - 1] for row in each.history(user)]
            for each in (usual, kept)
        ]
        assert items[0] == items[1]
