"""The files of a replay as one lazy table with a row for each interaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import polars as pl

from model.errors import ReplayIncomplete
from model.evaluation.replay import baselines

Protocol = Literal["timeline", "last-out"]

INTERACTIONS: Final = "interactions.parquet"
SCORED: Final = "scored.parquet"
LISTS: Final = "recommendations.parquet"
COST: Final = "cost.json"
_MODEL_COLUMNS: Final = ("rank", "known", "folds", "since_fold", "leak")


@dataclass(frozen=True, slots=True)
class Ranking:
    """A model or a baseline: `name` for readers, and the beginning of its columns in the table."""

    name: str
    prefix: str
    is_model: bool

    @property
    def rank(self) -> pl.Expr:
        """1 to 100, 0 for an item that is not in the list, null without a list."""
        return pl.col(f"{self.prefix}rank")

    def of(self, column: str) -> pl.Expr:
        return pl.col(f"{self.prefix}{column}")


@dataclass(frozen=True, slots=True)
class Replay:
    """A folder of a replay. `log` is `interactions.parquet`. `table` has the interactions that count by their time and
    that the protocol asks about, with `seen` and `age_ms` of the item, and the columns of every ranking behind its
    prefix.
    """

    folder: Path
    log: pl.LazyFrame
    table: pl.LazyFrame
    rankings: tuple[Ranking, ...]

    @property
    def models(self) -> tuple[Ranking, ...]:
        return tuple(each for each in self.rankings if each.is_model)

    @property
    def scored(self) -> pl.LazyFrame:
        """The interactions that every model had a list for."""
        return self.table.filter(pl.all_horizontal(each.rank.is_not_null() for each in self.models))

    @property
    def leaks(self) -> pl.Expr:
        """Whether any model was trained on the interaction."""
        return pl.any_horizontal(each.of("leak").fill_null(False) for each in self.models)

    def lists(self, ranking: Ranking) -> pl.LazyFrame | None:
        """`item_id`, and in how many lists it was among the first ten. None: the lists of this model were not kept."""
        if not ranking.is_model:
            shown = pl.scan_parquet(self.folder / baselines.SHOWN)
            return shown.filter(pl.col("baseline") == ranking.name).select("item_id", "lists")
        path = self.folder / ranking.name / LISTS
        if not path.exists():
            return None
        first = pl.scan_parquet(path).select(pl.col("items").list.head(baselines.FIRST).alias("item_id"))
        return first.explode("item_id").drop_nulls().group_by("item_id").agg(pl.len().cast(pl.Int64).alias("lists"))

    def cost(self, model: Ranking) -> dict[str, Any] | None:
        """What is in `cost.json`. None: it was not measured."""
        path = self.folder / model.name / COST
        if not path.exists():
            return None
        found: dict[str, Any] = msgspec.json.decode(path.read_bytes())
        return found


def opened(folder: Path, models: Sequence[str], protocol: Protocol) -> Replay:
    """The replay of a folder.

    Args:
        models: the names of the folders with `scored.parquet`; the others are compared with the first.
        protocol: with `last-out`, the table has each user's last interaction only.

    Raises:
        ReplayIncomplete: a file or a column is missing, or a file has another number of rows than
            `interactions.parquet`.
    """
    columns = ("user_id", "item_id", "timestamp", "taken", "had", "counted")
    interactions = _scan(folder / INTERACTIONS, columns)
    rows = _rows(interactions)
    parts = [interactions.select(columns)]
    rankings = []
    for at, model in enumerate(models):
        path = folder / model / SCORED
        prefix = f"m{at}_"
        parts.append(_aligned(path, _MODEL_COLUMNS, rows).select(pl.col(_MODEL_COLUMNS).name.prefix(prefix)))
        rankings.append(Ranking(model, prefix, is_model=True))
    path = folder / baselines.FILE
    counted = _aligned(path, ("seen", "age_ms"), rows)
    there = set(counted.collect_schema().names())
    simple = [name for name in baselines.DESCRIPTIONS if baselines.column(name) in there]
    parts.append(
        counted.select(
            "seen", "age_ms", *(pl.col(baselines.column(name)).alias(f"b{at}_rank") for at, name in enumerate(simple))
        )
    )
    rankings += [Ranking(name, f"b{at}_", is_model=False) for at, name in enumerate(simple)]
    table = pl.concat(parts, how="horizontal").filter("counted").drop("counted")
    if protocol == "last-out":
        last = interactions.group_by("user_id").agg(pl.col("taken").max())
        table = table.join(last, on=["user_id", "taken"], how="semi")
    return Replay(folder, interactions, table, tuple(rankings))


def _aligned(path: Path, columns: Sequence[str], rows: int) -> pl.LazyFrame:
    frame = _scan(path, columns)
    if (found := _rows(frame)) != rows:
        raise ReplayIncomplete(
            f"{path} has {found:,} rows, but {INTERACTIONS} has {rows:,}: the files of one replay have a row for each "
            "interaction. Run the replay again"
        )
    return frame


def _scan(path: Path, columns: Sequence[str]) -> pl.LazyFrame:
    _ensure(path)
    frame = pl.scan_parquet(path)
    if missing := [name for name in columns if name not in frame.collect_schema().names()]:
        raise ReplayIncomplete(f"{path} lacks the column {', '.join(missing)}. Run the replay again")
    return frame


def _rows(frame: pl.LazyFrame) -> int:
    return int(frame.select(pl.len()).collect().item())


def _ensure(path: Path) -> None:
    if not path.exists():
        raise ReplayIncomplete(f"{path} is missing: the replay did not end, or wrote into another folder")
