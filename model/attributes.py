"""What items are beside themselves: one value each of a column of the log, a genre or a brand, for the kinds that read
it.

Values keep the type they have in the log: strings or integers. `42` and `"42"` are the same value, as they are the same
item.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

Value = int | str


@dataclass(frozen=True, slots=True)
class Attributes:
    """`values[of[i] - 1]` is the value of catalogue item i, which is row i + 1; `of[i]` is 0 where it has none."""

    values: tuple[Value, ...]
    of: tuple[int, ...]  # (V,)

    def by_row(self) -> Tensor:
        """(V + 2,) int64, of every item row: padding and items outside the catalogue have none."""
        return torch.tensor([0, *self.of, 0])

    def by_item(self, item_ids: Sequence[Value]) -> dict[str, Value]:
        """The values of those items that have one, by the items' texts."""
        return {str(item): self.values[number - 1] for item, number in zip(item_ids, self.of, strict=True) if number}


def most_frequent(seen: pl.DataFrame) -> dict[str, Value]:
    """Every item's most frequent value, of equally frequent ones the smallest, by the items' texts; items without a
    value are not in it.

    Args:
        seen: `item_id`, `attribute` and how often they were seen together, `count`; any order.
    """
    told = seen.filter(pl.col("attribute").is_not_null() & (pl.col("count") > 0))
    chosen = told.sort("count", "attribute", descending=[True, False]).unique(
        "item_id", keep="first", maintain_order=True
    )
    return dict(zip(chosen["item_id"].cast(pl.String).to_list(), chosen["attribute"].to_list(), strict=True))


def of_catalogue(
    item_ids: Sequence[Value],
    value_of: dict[str, Value],
    known: Attributes | None = None,
    known_ids: Sequence[Value] = (),
) -> Attributes:
    """The attributes of a catalogue.

    Args:
        item_ids: of its rows 1..V.
        value_of: values by items' texts, as `most_frequent` tells them.
        known: an earlier version's, of its items `known_ids`. All of its values stay, and the items without a value now
            keep the one they had.

    Returns:
        Values in order, those of the log first.
    """
    earlier = {} if known is None else known.by_item(known_ids)
    texts = [str(item) for item in item_ids]
    said = {text: value_of[text] for text in texts if text in value_of}
    values = sorted(set(said.values()))  # of one column, so all of one type
    there = {str(value) for value in values}
    values += [value for value in (() if known is None else known.values) if str(value) not in there]
    number = {str(value): at for at, value in enumerate(values, start=1)}
    whole = {**earlier, **said}
    return Attributes(tuple(values), tuple(number[str(whole[text])] if text in whole else 0 for text in texts))
