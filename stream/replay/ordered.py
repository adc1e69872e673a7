"""Brings a log into the order in which it happened, and divides it by user into shards.

A shard is a partition of the interactions topic as `rec2pm produce` would fill an empty one: Kafka's partitioner says
where a user belongs, and the offset is the interaction's place there. A log that was read from Kafka keeps the
partitions and offsets that it had.

The log may be larger than memory. What is in memory at a time is one shard, and some hundred thousand interactions.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from stream.kafka.partitioner import partitions_of

_BATCH: Final = 200_000
_BUCKET: Final = 500_000
"""Interactions that are sorted at a time, in a log that is not in the order of time."""
_LEAST_PARTS: Final = 16
_PART: Final = 500_000
"""Interactions in a shard, about, unless somebody says how many shards there are: a shard is in memory at a time."""
_SAMPLE: Final = 1_000_000
"""Interactions whose times say where such a log is divided, at most."""

INTERACTIONS: Final[Mapping[str, Any]] = {
    "partition": pl.Int32(),
    "offset": pl.Int64(),
    "user_id": pl.String(),
    "item_id": pl.String(),
    "timestamp": pl.Int64(),
    "taken": pl.Int64(),
    "had": pl.Int32(),
    "counted": pl.Boolean(),
    "row": pl.Int64(),
}
"""The columns of a shard: `taken` interactions of the user came before, `had` of them with this item; `counted` ones
are measured; `row` is the place in the whole log, in the order of time.
"""


def usual_partitions(rows: int) -> int:
    """How many shards a log of so many interactions has, if nobody says it. It depends on nothing else, so the results
    do not either.
    """
    return max(_LEAST_PARTS, -(-rows // _PART))


def prepare(
    log: pl.LazyFrame, folder: Path, partitions: int, begin_ms: int | None, progress: Callable[[int, int], None]
) -> list[Path]:
    """Write the log in the order of time (folder/ordered/*.parquet), and each shard (folder/shards/NUMBER.parquet).

    Args:
        log: user_id, item_id and timestamp (epoch ms), and partition and offset if it was read from Kafka. Interactions
            of the same millisecond keep their order.
        folder: an empty one.
        partitions: how many shards there are; without effect on a log that has partitions.
        begin_ms: interactions from this time on count; None: all do.
        progress: called with (interactions done, all).

    Returns:
        The shards that have interactions, in the order of their numbers.
    """
    ordered, parts, shards = folder / "ordered", folder / "parts", folder / "shards"
    for each in (ordered, parts, shards):
        each.mkdir(parents=True)
    placed = "partition" in log.collect_schema()
    columns = ["user_id", "item_id", "timestamp", *(("partition", "offset") if placed else ())]
    rows = log.select(pl.col("user_id", "item_id").cast(pl.String), pl.col(columns[2:]))
    total = rows.select(pl.len()).collect(engine="streaming").item()
    batches = _batches(rows) if _in_order(rows) else _sorted(rows, total, folder / "buckets")
    writer = _Parts(parts)
    counts: dict[int, int] = {}
    done = 0
    for number, batch in enumerate(batches):
        batch = batch.with_columns(pl.int_range(done, done + len(batch), dtype=pl.Int64).alias("row"))
        if not placed:
            batch = _placed(batch, partitions, counts)
        batch = batch.with_columns(pl.col("partition").cast(pl.Int32), pl.col("offset").cast(pl.Int64))
        batch.write_parquet(ordered / f"{number:06d}.parquet")
        writer.add(batch)
        done += len(batch)
        progress(done, total)
    writer.close()
    return [_shard(each, shards, begin_ms) for each in sorted(parts.iterdir())]


def _batches(rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    yield from rows.collect_batches(chunk_size=_BATCH, maintain_order=True)


def _in_order(rows: pl.LazyFrame) -> bool:
    newest: int | None = None
    for batch in rows.select("timestamp").collect_batches(chunk_size=_BATCH, maintain_order=True):
        times = batch["timestamp"]
        if not times.is_sorted() or (newest is not None and times[0] < newest):
            return False
        newest = times[-1]
    return True


def _sorted(rows: pl.LazyFrame, total: int, scratch: Path) -> Iterator[pl.DataFrame]:
    """The rows in the order of time: divided by time into files of about the same size, each sorted in memory."""
    scratch.mkdir()
    every = rows.select(pl.col("timestamp").gather_every(1 + total // _SAMPLE)).collect(engine="streaming")
    cuts = np.linspace(0, 1, 1 + max(1, total // _BUCKET))[1:-1]
    edges = np.unique(np.quantile(every["timestamp"].to_numpy(), cuts).astype(np.int64))
    pieces: dict[int, list[Path]] = {}
    for number, batch in enumerate(_batches(rows)):
        bucket = np.searchsorted(edges, batch["timestamp"].to_numpy(), side="right")
        for each in np.unique(bucket).tolist():
            path = scratch / f"{each:06d}-{number:06d}.parquet"
            batch.filter(pl.Series(bucket == each)).write_parquet(path)
            pieces.setdefault(each, []).append(path)
    for each in sorted(pieces):
        yield pl.concat([pl.read_parquet(path) for path in pieces[each]]).sort("timestamp", maintain_order=True)
        for path in pieces[each]:
            path.unlink()
    scratch.rmdir()


def _placed(batch: pl.DataFrame, partitions: int, counts: dict[int, int]) -> pl.DataFrame:
    """The batch with partitions and offsets. `counts`: partition → interactions before; it is counted on."""
    users = batch["user_id"].unique()
    numbers = partitions_of([user.encode() for user in users], partitions, "murmur2")
    where = pl.DataFrame({"user_id": users, "partition": numbers})
    batch = batch.join(where, on="user_id", how="left", maintain_order="left")
    before = pl.DataFrame(
        {"partition": list(counts), "before": list(counts.values())}, {"partition": pl.Int64, "before": pl.Int64}
    )
    batch = batch.join(before, on="partition", how="left", maintain_order="left").with_columns(
        (pl.int_range(pl.len(), dtype=pl.Int64).over("partition") + pl.col("before").fill_null(0)).alias("offset")
    )
    for number, added in batch.group_by("partition").len().iter_rows():
        counts[number] = counts.get(number, 0) + added
    return batch.drop("before")


class _Parts:
    """Collects the interactions of each partition in files of some size."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._waiting, self._rows, self._number = folder, list[pl.DataFrame](), 0, 0

    def add(self, batch: pl.DataFrame) -> None:
        self._waiting.append(batch)
        self._rows += len(batch)
        if self._rows >= 4 * _BATCH:
            self.close()

    def close(self) -> None:
        if not self._waiting:
            return
        together = pl.concat(self._waiting)
        for (number,), rows in together.partition_by("partition", as_dict=True, maintain_order=True).items():
            folder = self._folder / f"{number:05d}"
            folder.mkdir(exist_ok=True)
            rows.write_parquet(folder / f"{self._number:06d}.parquet")
        self._waiting, self._rows, self._number = [], 0, self._number + 1


def _shard(parts: Path, into: Path, begin_ms: int | None) -> Path:
    """One shard, whole: in the order of offsets, with what came before each interaction."""
    shard = pl.concat([pl.read_parquet(path) for path in sorted(parts.iterdir())]).sort("offset", maintain_order=True)
    shard = shard.with_columns(
        pl.int_range(pl.len(), dtype=pl.Int64).over("user_id").alias("taken"),
        pl.int_range(pl.len(), dtype=pl.Int32).over("user_id", "item_id").alias("had"),
        (pl.lit(True) if begin_ms is None else pl.col("timestamp") >= begin_ms).alias("counted"),
    )
    shutil.rmtree(parts)
    path = into / f"{parts.name}.parquet"
    shard.select(pl.col(name).cast(dtype) for name, dtype in INTERACTIONS.items()).write_parquet(path)
    return path
