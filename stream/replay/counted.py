"""Which interactions of a log are replayed, and which of them count."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import polars as pl

from model.audit.timeline import earliest_but
from model.errors import LogUnreadable
from model.log import Log
from model.log.source import parts
from stream.interactions.pieces import Origin, origin_of
from stream.replay.run import sha256_of


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is replayed."""

    log: pl.LazyFrame
    """user_id, item_id, timestamp, and partition and offset if it was read from Kafka."""
    rows: int
    begin_ms: int | None
    """Interactions from this time on count; None: all."""
    identity: Mapping[str, Any]
    """What makes two of them the same."""
    origin: Origin | None = None
    """Where it came from, if it is the whole of a folder that `interactions export` wrote."""


def chosen(
    source: str, log: Log, *, users: float, seed: int, begin: float | int | None, end: float | int | None
) -> Chosen:
    """The part of a log that is replayed.

    Args:
        source: where the log is.
        users: the share of the users.
        begin, end: a time as epoch ms, or as float a share of the interactions in the order of time.

    Raises:
        LogUnreadable: nothing is left, or the partitions and offsets of a log from Kafka cannot be used.
    """
    files = [part.path for part in parts(source, [])]
    frame = placed(source, log)
    if users < 1:
        every = frame.select(pl.col("user_id").cast(pl.String).unique()).collect(engine="streaming")["user_id"]
        drawn = every.filter(pl.Series([_drawn(user, seed) < users for user in every], dtype=pl.Boolean))
        frame = frame.filter(pl.col("user_id").cast(pl.String).is_in(drawn.implode()))
    begin_ms, end_ms = _time(frame, begin), _time(frame, end)
    if end_ms is not None:
        frame = frame.filter(pl.col("timestamp") < end_ms)
    rows = frame.select(pl.len()).collect(engine="streaming").item()
    if not rows:
        raise LogUnreadable(f"{source}: no interaction is left to replay: see --to and --users")
    identity = {
        "log": sha256_of(files),
        "users": [users, seed],
        "to": end_ms,
        "places": "partition" in frame.collect_schema(),
    }
    whole = users >= 1 and end_ms is None
    return Chosen(frame, rows, begin_ms, identity, origin_of(Path(source)) if whole else None)


def placed(source: str, log: Log) -> pl.LazyFrame:
    """The interactions of a log, with their partitions and offsets if they were read from Kafka.

    Raises:
        LogUnreadable: the partitions and offsets cannot be used.
    """
    files = parts(source, [])
    places = _places([part.path for part in files]) if files[0].format == "Parquet" else None
    if places is None:
        return log.interactions
    if log.passed_over:
        raise LogUnreadable(f"{source}: has partitions and offsets of Kafka, and rows with other events: drop --events")
    return pl.concat([log.interactions, places], how="horizontal")


def _drawn(user: str, seed: int) -> float:
    """A number from 0 to 1 that depends on nothing but the user and the seed."""
    return int.from_bytes(blake2b(f"{seed} {user}".encode(), digest_size=8).digest(), "big") / 2**64


def _places(files: list[Any]) -> pl.LazyFrame | None:
    """The columns partition and offset, if the files have them as integers."""
    frame = pl.scan_parquet(files, glob=False, hive_partitioning=False)
    schema = frame.collect_schema()
    if all(name in schema and schema[name].is_integer() for name in ("partition", "offset")):
        return frame.select("partition", "offset")
    return None


def _time(frame: pl.LazyFrame, asked: float | int | None) -> int | None:
    """A time as epoch ms, or that of the interaction after a share of the log."""
    if asked is None or isinstance(asked, int):
        return asked
    times = frame.select("timestamp")
    count, last = times.select(pl.len(), pl.col("timestamp").max().alias("last")).collect(engine="streaming").row(0)
    if not count:
        return None
    at = round(asked * count)
    return earliest_but(times, at) if at < count else int(last) + 1
