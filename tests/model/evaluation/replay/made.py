"""Folders as a replay writes them, with made-up users and models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from model.evaluation.replay import baselines
from model.evaluation.replay.histories import Rule

DAY_MS = 86_400_000
START_MS = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class Model:
    """`skill`: how often a list has the item. `trained_until`: the share of the log that it was trained on.
    `catalogue`: the share of items that it knows. `every`: lists are made so often.
    """

    name: str
    skill: float = 0.4
    trained_until: float = 0.0
    catalogue: float = 0.95
    every: int = 1
    segment_length: int = 8


def log(
    *, rows: int = 3_000, users: int = 120, items: int = 60, days: float = 40.0, seed: int = 0, partitions: int = 4
) -> pl.DataFrame:
    """A log in time order, with partition and offset, some equal times, and items that appear later than others."""
    rng = np.random.default_rng(seed)
    moment = np.sort(rng.random(rows))
    user = (rng.random(rows) ** 1.5 * users).astype(int)
    item = np.minimum((rng.random(rows) ** 2 * items * (0.5 + 0.5 * moment)).astype(int) + user % 5, items - 1)
    times = START_MS + (moment * days * DAY_MS).astype(np.int64) // 60_000 * 60_000
    return (
        pl.DataFrame({"user_id": [f"u{u:05}" for u in user], "item_id": [f"i{i:05}" for i in item], "timestamp": times})
        .with_row_index("row")
        .with_columns(
            pl.col("row").cast(pl.Int64),
            pl.Series("partition", user % partitions, dtype=pl.Int32),
            taken=pl.int_range(pl.len()).over("user_id").cast(pl.Int64),
            counted=pl.lit(True),
            had=pl.int_range(pl.len()).over("user_id", "item_id").cast(pl.Int32),
        )
        .with_columns(offset=pl.int_range(pl.len()).over("partition").cast(pl.Int64))
    )


def folder(
    out: Path, ordered: pl.DataFrame, models: Sequence[Model], *, rule: Rule | None = None, seed: int = 0
) -> Mapping[str, pl.DataFrame]:
    """Write the files of a replay. Returns `scored.parquet` of each model."""
    out.mkdir(parents=True, exist_ok=True)
    baselines.write(ordered.lazy(), out, rule or Rule("none", 8, 2))
    rows = ordered.sort("partition", "offset")
    columns = ("partition", "offset", "user_id", "item_id", "timestamp", "taken", "had", "counted", "row")
    rows.select(columns).write_parquet(out / "interactions.parquet")
    return {model.name: _model(out / model.name, rows, model, seed + at) for at, model in enumerate(models)}


def _model(out: Path, rows: pl.DataFrame, model: Model, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    out.mkdir()
    n, taken = len(rows), rows["taken"].to_numpy()
    made_after = taken // model.every * model.every
    listed = made_after > 0
    items = rows["item_id"].unique().sort()
    known = rows["item_id"].is_in(items[: int(model.catalogue * len(items))].implode()).to_numpy()
    rank = np.where(rng.random(n) < model.skill, np.minimum(rng.geometric(0.08, n), 120), 0)
    rank = np.where(known & (rank <= 100), rank, 0)
    scored = pl.DataFrame(
        {
            "rank": pl.Series(rank, dtype=pl.Int16),
            "known": known,
            "source": "memory",
            "folds": pl.Series(made_after // model.segment_length, dtype=pl.Int32),
            "since_fold": pl.Series(made_after % model.segment_length, dtype=pl.Int32),
            "leak": rows["row"] < model.trained_until * n,
            "version": model.name,
            "listed": listed,
        }
    )
    unlisted = ("rank", "known", "source", "folds", "since_fold", "version")
    scored = scored.with_columns(pl.when("listed").then(pl.col(name)).alias(name) for name in unlisted).drop("listed")
    scored.write_parquet(out / "scored.parquet")
    lists = rows.filter(pl.Series((taken + 1) % model.every == 0))
    chosen = rng.integers(0, int(model.catalogue * len(items)), (len(lists), 12))
    lists.select("user_id", "partition", "offset").with_columns(
        pl.Series("items", [[items[at] for at in row] for row in chosen.tolist()], dtype=pl.List(pl.String))
    ).write_parquet(out / "recommendations.parquet")
    folds = int((taken % model.segment_length == model.segment_length - 1).sum())
    cost = {
        "lists": len(lists),
        "list_seconds": 0.002 * len(lists) * (1 + seed),
        "folds": folds,
        "fold_seconds": 0.02 * folds,
        "interactions": n,
        "seconds": 3.0,
        "users": rows["user_id"].n_unique(),
        "state_bytes": 1_200 * (1 + seed) * rows["user_id"].n_unique(),
    }
    (out / "cost.json").write_bytes(msgspec.json.encode(cost))
    return scored
