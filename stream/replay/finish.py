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
RANKED: Final[dict[str, Any]] = {
    "user_id": pl.String(),
    "item_id": pl.String(),
    "score": pl.Float32(),
    "rank": pl.Int32(),
}
_ROW_GROUP: Final = 20_000
"""Lists that a reader decodes at a time."""


def finish(shard: Shard) -> None:
    """Write the tables of a shard that was replayed to its end, and remove what was needed to go on with it."""
    out = Path(shard.task.out)
    figures: dict[str, float] = {}
    scored = _Scored(shard.feed.offsets)
    lists = out / "lists"
    lists.mkdir(exist_ok=True)
    feed = shard.feed
    newest = np.full(len(feed.users), -1, np.int64)  # the offset of each user's last list
    for number, frame in enumerate(shard.frames.read()):
        scored.add(frame.tables["scored"])
        made = frame.tables["lists"]
        made.write_parquet(lists / f"{number:06d}.parquet")
        offsets = made["offset"].to_numpy()
        newest[feed.user[np.searchsorted(feed.offsets, offsets)]] = offsets  # in their order, so the last one stays
        for name, figure in frame.figures.items():
            figures[name] = figures.get(name, 0) + figure
    scored.table().write_parquet(out / "scored.parquet")
    pl.scan_parquet(lists / "*.parquet", schema=LISTS).sink_parquet(
        out / "recommendations.parquet", row_group_size=_ROW_GROUP
    )
    _write_ranked(lists, pl.Series(newest), out)
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


def _write_ranked(lists: Path, newest: pl.Series, out: Path) -> None:
    """Write each user's last list, a row for each item, in the order of offsets.

    Args:
        lists: a folder with all lists, in files in their order.
        newest: the offsets of the last ones.
    """
    pieces = out / "last"
    pieces.mkdir(exist_ok=True)
    for path in sorted(lists.iterdir()):
        last = pl.read_parquet(path, columns=["user_id", "offset", "items", "scores"])
        items = last.filter(pl.col("offset").is_in(newest.implode())).explode("items", "scores")
        items.select(
            "user_id",
            pl.col("items").alias("item_id"),
            pl.col("scores").alias("score"),
            (pl.int_range(pl.len(), dtype=pl.Int32).over("offset") + 1).alias("rank"),
        ).write_parquet(pieces / path.name)
    pl.scan_parquet(pieces / "*.parquet", schema=RANKED).sink_parquet(out / "ranked.parquet")
    shutil.rmtree(pieces)


def _write_state(shard: Shard, out: Path) -> dict[str, float]:
    """Write the states of a shard's users; return how many bytes they are."""
    store, pieces = shard.partition.store, out / "states"
    pieces.mkdir(exist_ok=True)
    write_parts(rows(store.records(), shard.partition.number), pieces, "state")
    pl.scan_parquet(pieces / "*.parquet", schema=dict(SCHEMA)).sink_parquet(out / "state.parquet")
    shutil.rmtree(pieces)
    return {"state_bytes": sum(len(key) + len(value) for key, value in store.records())}
