"""Items of a log that the catalogue of a model lacks."""

from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from model.audit.finding import Finding, graded, share
from model.audit.items import ByItem
from model.audit.wording import percent
from model.ids import Id
from model.version.manifest import CATALOGUE
from model.version.unknown_items import SHOWN, both_sides

if TYPE_CHECKING:
    from model.version.registry import ModelVersion

_UNKNOWN: Final = (0.05, 0.5)
"""Beyond the second one, ids are most likely written in two ways."""


def unknown_items(version: "ModelVersion", items: ByItem) -> Finding:
    """How many interactions are with unknown items.

    Raises:
        ModelError: the catalogue cannot be read.
    """
    catalogue = msgspec.json.decode(version.read(CATALOGUE), type=list[Id])
    # An integer and its decimal text are the same id.
    known = pl.Series([str(item) for item in catalogue], dtype=pl.String)
    unknown = items.counts.filter(~pl.col("item_id").cast(pl.String).is_in(known.implode()))
    lacked, rows = int(unknown["count"].sum()), int(items.counts["count"].sum())
    value = share(lacked, rows)
    verdict = graded(value, *_UNKNOWN)
    figure = f"{version.reference}: {percent(lacked, rows)} of the interactions"
    words = "Its catalogue has every item."
    if lacked:
        words = f"Its catalogue lacks {len(unknown):,} of {len(items.counts):,} items: {both_sides(unknown['item_id'].head(SHOWN), catalogue)}."
    if verdict == "FAIL":
        words += " Ids must be the same in both logs: --id-type says what they are."
    return Finding("unknown items", verdict, figure, words, value, version.reference)
