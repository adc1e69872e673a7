"""What is left of a shard when it has come to its end: its tables as files, and its users' states."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl

from stream.replay.feed import Ints
from stream.replay.shard import FRAMES, LISTS, SCORED, STATE, Shard
from stream.state_rows import SCHEMA, rows, write_parts

DONE: Final = "done.json"
TABLES: Final = ("scored", "recommendations", "ranked")
"""The files of a finished shard, without their ending. One that has a memory has state.parquet too."""


def finish(shard: Shard) -> None:
    """Write the tables of a shard that was replayed to its end, and remove what was needed to go on with it."""
    out = Path(shard.task.out)
    figures: dict[str, float] = {}
    scored = _Scored(shard.feed.offsets)
    lists = out / "lists"
    lists.mkdir(exist_ok=True)
    for number, frame in enumerate(shard.frames.read()):
        scored.add(frame.tables["scored"])
        frame.tables["lists"].write_parquet(lists / f"{number:06d}.parquet")
        for name, figure in frame.figures.items():
            figures[name] = figures.get(name, 0) + figure
    scored.table().write_parquet(out / "scored.parquet")
    pl.scan_parquet(lists / "*.parquet", schema=LISTS).sink_parquet(out / "recommendations.parquet")
    _ranked(out / "recommendations.parquet").write_parquet(out / "ranked.parquet")
    figures["users"] = len(shard.feed.users)
    if shard.task.memory:
        figures |= _write_state(shard, out)
    shard.close()
    shutil.rmtree(lists)
    shutil.rmtree(out / STATE)
    (out / FRAMES).unlink()
    (out / DONE).write_bytes(msgspec.json.encode(figures))


_KINDS: Final[Mapping[Any, Any]] = {
    pl.Int16(): np.int16,
    pl.Int32(): np.int32,
    pl.Boolean(): np.bool_,
    pl.String(): np.int32,  # the number of the text
}


class _Scored:
    """A row for each interaction of a shard, null where the user had no list: 18 bytes each until it is a table."""

    def __init__(self, offsets: Ints) -> None:
        self._offsets = offsets
        self._listed = np.zeros(len(offsets), np.bool_)
        self._texts: dict[str, dict[str, int]] = {}
        """Column → text → its number in the column."""
        self._columns = {
            name: np.zeros(len(offsets), _KINDS[dtype]) for name, dtype in SCORED.items() if name != "offset"
        }

    def add(self, scored: pl.DataFrame) -> None:
        """Some rows, in any order."""
        at = np.searchsorted(self._offsets, scored["offset"].to_numpy())
        self._listed[at] = True
        for name, column in self._columns.items():
            column[at] = self._numbers(name, scored[name])

    def _numbers(self, name: str, values: pl.Series) -> Any:
        if values.dtype != pl.String:
            return values.to_numpy()
        known = self._texts.setdefault(name, {})
        for text in values.unique(maintain_order=True):
            known.setdefault(text, len(known))
        return values.replace_strict(known, return_dtype=pl.Int32).to_numpy()

    def table(self) -> pl.DataFrame:
        """All rows, in the order of offsets."""
        listed = pl.Series(self._listed)
        whole = pl.DataFrame(
            {
                name: pl.Series([*self._texts[name]], dtype=pl.String).gather(column) if name in self._texts else column
                for name, column in self._columns.items()
            }
        )
        return whole.select(pl.when(listed).then(pl.col(name)).cast(SCORED[name]).alias(name) for name in whole.columns)


def done(out: Path) -> Mapping[str, Any] | None:
    """The figures of a shard that is finished; None if it is not."""
    try:
        figures: Mapping[str, Any] = msgspec.json.decode((out / DONE).read_bytes())
    except FileNotFoundError:
        return None
    return figures


def _ranked(recommendations: Path) -> pl.DataFrame:
    """Each user's last list, a row for each item."""
    lists = pl.scan_parquet(recommendations)
    last = lists.group_by("user_id").agg(pl.col("offset").max())
    newest = lists.join(last, on=["user_id", "offset"], how="semi").select("user_id", "offset", "items", "scores")
    exploded = newest.collect(engine="streaming").sort("offset").explode("items", "scores")
    return exploded.select(
        "user_id",
        pl.col("items").alias("item_id"),
        pl.col("scores").alias("score"),
        (pl.int_range(pl.len(), dtype=pl.Int32).over("user_id") + 1).alias("rank"),
    )


def _write_state(shard: Shard, out: Path) -> dict[str, float]:
    """Write the states of a shard's users; return how many bytes they are."""
    store, pieces = shard.partition.store, out / "states"
    pieces.mkdir(exist_ok=True)
    write_parts(rows(store.records(), shard.partition.number), pieces, "state")
    pl.scan_parquet(pieces / "*.parquet", schema=dict(SCHEMA)).sink_parquet(out / "state.parquet")
    shutil.rmtree(pieces)
    return {"state_bytes": sum(len(key) + len(value) for key, value in store.records())}
