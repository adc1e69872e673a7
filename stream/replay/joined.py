"""The shards' tables as one file for each kind: in the order of partitions, then of offsets."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import polars as pl

from stream.replay.finish import TABLES, done
from stream.state_rows import Facts, join_parts

_ROW_GROUP: Final = 100_000
"""Rows that a reader takes at a time. A fixed number, so that the same tables are the same bytes."""


def join_model(shards: Sequence[Path], out: Path, facts: Facts) -> dict[str, float]:
    """Write NAME.parquet of every kind, and cost.json, for one model.

    Args:
        shards: the folders of its shards, in the order of partitions.
        out: the folder of the model.
        facts: what its states have in common.

    Returns:
        What cost.json has: the figures of all shards together.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        join([shard / f"{name}.parquet" for shard in shards], out / f"{name}.parquet")
    if (shards[0] / "state.parquet").exists():
        with tempfile.TemporaryDirectory(dir=out) as scratch:
            for shard in shards:
                (Path(scratch) / f"{shard.name}.parquet").symlink_to((shard / "state.parquet").absolute())
            join_parts(Path(scratch), out / "state.parquet", facts)
    cost: dict[str, float] = {}
    for shard in shards:
        for name, figure in (done(shard) or {}).items():
            cost[name] = cost.get(name, 0) + figure
    (out / "cost.json").write_text(json.dumps(cost, indent=1) + "\n")
    return cost


def join(parts: Sequence[Path], out: Path) -> None:
    """Write the rows of several files into one, whole or not at all."""
    partial = out.with_name(out.name + ".partial")
    pl.scan_parquet(list(parts)).sink_parquet(partial, row_group_size=_ROW_GROUP, maintain_order=True)
    partial.replace(out)
