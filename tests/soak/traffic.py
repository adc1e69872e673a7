"""What the soak sends: some users of a log, all at the same time, each from their first interaction to their last."""

import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import polars as pl

from model.log import in_time_order, read_log
from model.synthetic import SyntheticLog, generate
from tests.crash.source import Sent


def log_of(path: Path | None, seed: int) -> pl.DataFrame:
    """user_id, item_id, timestamp in time order: of a file, or synthetic."""
    if path is None:
        return generate(SyntheticLog(users=4000, items=2000, interactions_median=120, seed=seed)).interactions
    return in_time_order(read_log(str(path))).select("user_id", "item_id", "timestamp").collect()


def mixed(log: pl.DataFrame, interactions: int, seed: int) -> pl.DataFrame:
    """At least so many interactions of users drawn at random, spread evenly: so every user meets many versions."""
    counts = log.group_by("user_id", maintain_order=True).len().sample(fraction=1.0, shuffle=True, seed=seed)
    enough = counts.filter(pl.col("len").cum_sum() - pl.col("len") < interactions)
    chosen = log.join(enough, on="user_id", maintain_order="left")
    drawn = random.Random(seed)
    offset = pl.Series([drawn.random() for _ in range(len(chosen))])
    place = (pl.int_range(pl.len()).over("user_id") + offset) / pl.col("len")
    return chosen.with_columns(place=place).sort("place", maintain_order=True).drop("place", "len")


def records(log: pl.DataFrame) -> Iterator[Sent]:
    """Over and over."""
    pack = msgspec.msgpack.encode
    while True:
        for user, item, time in log.select("user_id", "item_id", "timestamp").iter_rows():
            yield str(user).encode(), pack({"item": item, "ts": time})
