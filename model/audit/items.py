"""What is measured item by item."""

from dataclasses import dataclass

import polars as pl

from model.log import Log


@dataclass(frozen=True, slots=True)
class ByItem:
    """`counts`: `item_id` and in how many interactions it is (`count`), the most frequent first. `cold`: interactions
    from the split on with an item that is in none before it.
    """

    counts: pl.DataFrame
    cold: int


def by_item(log: Log, split_ms: int) -> ByItem:
    """Measure a log, in one scan. `split_ms`: from this time on, interactions are predicted."""
    ms = pl.col("timestamp")
    items = log.interactions.group_by("item_id").agg(
        pl.len().alias("count"), ms.min().alias("first"), (ms >= split_ms).sum().alias("after")
    )
    found = items.collect(engine="streaming").sort(["count", "item_id"], descending=[True, False])
    cold = found.filter(pl.col("first") >= split_ms)
    return ByItem(found.select("item_id", "count"), int(cold["after"].sum()))
