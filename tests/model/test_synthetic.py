import dataclasses

import polars as pl
import pytest

from model.synthetic import SyntheticLog, generate

SMALL = SyntheticLog(users=200, items=300, genres=15, interactions_median=40)


def test_the_same_parameters_give_the_same_log_and_another_seed_another() -> None:
    first, again, other = generate(SMALL), generate(SMALL), generate(dataclasses.replace(SMALL, seed=1))
    assert first.interactions.equals(again.interactions)
    assert first.items.equals(again.items)
    assert not first.interactions.equals(other.interactions)


def test_it_is_a_log_in_time_order_of_known_items_with_titles_of_their_own() -> None:
    made = generate(SMALL)
    assert made.interactions.schema == {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    assert made.interactions["timestamp"].is_sorted()
    assert made.interactions["timestamp"][0] >= SMALL.start_ms
    assert made.interactions["user_id"].n_unique() == SMALL.users
    assert made.items["title"].n_unique() == made.items["item_id"].n_unique() == SMALL.items
    assert set(made.interactions["item_id"]) <= set(made.items["item_id"])


def test_genres_can_be_had_with_the_interactions() -> None:
    made = generate(SMALL)
    whole = made.with_genres()
    assert whole.drop("genre").equals(made.interactions)
    genre_of = dict(made.items.select("item_id", "genre").rows())
    assert whole["genre"].to_list() == [genre_of[item] for item in whole["item_id"]]


def test_users_are_interleaved() -> None:
    users = generate(SyntheticLog()).interactions["user_id"]
    assert (users[1:] != users[:-1]).mean() > 0.7  # type: ignore[operator]


def test_a_user_does_not_take_an_item_twice_before_they_know_the_genre() -> None:
    made = generate(SyntheticLog())
    taken = made.interactions.group_by("user_id", "item_id").len()
    assert (taken["len"] > 1).mean() < 0.03  # type: ignore[operator]


def test_favourites_last_and_moods_pass() -> None:
    """Within a burst the genre sticks; over the whole log, a user's three most frequent genres are far above their
    share.
    """
    made = generate(SyntheticLog())
    genres = made.interactions.join(made.items, on="item_id", how="left", maintain_order="left").sort(
        "user_id", maintain_order=True
    )
    same = (genres["genre"][1:] == genres["genre"][:-1]) & (genres["user_id"][1:] == genres["user_id"][:-1])
    assert 0.25 < same.mean() < 0.6  # type: ignore[operator]
    late = genres.filter(pl.int_range(pl.len()).over("user_id") >= pl.len().over("user_id") // 2)
    early = genres.filter(pl.int_range(pl.len()).over("user_id") < pl.len().over("user_id") // 2)
    top = (
        early.group_by("user_id", "genre")
        .len()
        .sort("len", descending=True)
        .group_by("user_id")
        .head(3)
        .select("user_id", "genre")
    )
    again = late.join(top.with_columns(favourite=True), on=["user_id", "genre"], how="left")["favourite"].fill_null(
        value=False
    )
    assert again.mean() > 0.3  # type: ignore[operator]


@pytest.mark.parametrize("wrong", [{"items": 5}, {"items": 10_000}, {"genres": 99}, {"favourites": 31}, {"users": 0}])
def test_a_log_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must be|at least"):
        SyntheticLog(**wrong)
