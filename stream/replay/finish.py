"""What is left of a shard when it has come to its end: its tables as files, and its users' states."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from stream.replay.shard import FRAMES, LISTS, SCORED, STATE, Shard
from stream.state_rows import SCHEMA, rows, write_parts

DONE: Final = "done.json"
TABLES: Final = ("scored", "recommendations", "ranked")
"""The files of a finished shard, without their ending. One that has a memory has state.parquet too."""


def finish(shard: Shard) -> None:
    """Write the tables of a shard that was replayed to its end, and remove what was needed to go on with it."""
    out = Path(shard.task.out)
    figures: dict[str, float] = {}
    scored = [pl.DataFrame(schema=SCORED)]
    lists = out / "lists"
    lists.mkdir(exist_ok=True)
    for number, frame in enumerate(shard.frames.read()):
        scored.append(frame.tables["scored"])
        frame.tables["lists"].write_parquet(lists / f"{number:06d}.parquet")
        for name, figure in frame.figures.items():
            figures[name] = figures.get(name, 0) + figure
    all_rows = pl.DataFrame({"offset": shard.feed.offsets})
    of_all = all_rows.join(pl.concat(scored), on="offset", how="left", maintain_order="left")
    of_all.drop("offset").write_parquet(out / "scored.parquet")
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
