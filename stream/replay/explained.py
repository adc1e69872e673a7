"""One list once more: what its user had done until then, what was folded, which version served, and the list itself."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from stream.errors import ReplayFailed
from stream.replay import pool, run
from stream.replay.run import Contender, Options


@dataclass(frozen=True, slots=True)
class Explained:
    """A list and what led to it."""

    recommendation: dict[str, Any]
    """The list as a record of the topic, with `user_id`."""
    interactions: Sequence[tuple[int, str, int]]
    """Those of the user until then, oldest first: offset, item, time (epoch ms)."""
    folded: int
    """How many of them are folded into the preference memory."""
    kept: int
    """How many of the folded ones are kept, the newest: no list has them with `--exclude kept`."""


def explained(history: pl.DataFrame, contender: Contender, options: Options, offset: int) -> Explained:
    """Make the list after an interaction again.

    Args:
        history: user_id, item_id, timestamp, partition and offset of the interactions of one user, up to that one.
        contender: what served.
        offset: of the interaction after which the list was made.

    Raises:
        ReplayFailed: there is no list after this interaction.
    """
    with tempfile.TemporaryDirectory(prefix="rec2pm-explain-") as name:
        out = Path(name)
        run.replay(
            history.lazy(),
            [contender],
            options,
            out,
            identity={},
            heard=lambda *_: None,
            run=pool.run_in_this_process,
        )
        lists = pl.read_parquet(out / contender.name / "recommendations.parquet").filter(pl.col("offset") == offset)
    if lists.is_empty():
        raise ReplayFailed(
            f"no list was made after the interaction at offset {offset}: the settings say when a user gets one (REC2PM_RECOMMEND)"
        )
    made = lists.row(0, named=True)
    rows = history.sort("offset").select("offset", "item_id", "timestamp").rows()
    length = contender.turns_of(made["partition"])[0].version.manifest().segment_length
    return Explained(made, rows, made["folds"] * length, min(made["folds"], options.keep_segments) * length)
