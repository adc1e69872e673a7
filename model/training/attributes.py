"""The attributes of a catalogue's items, found in a log: each item has its most frequent value."""

from collections.abc import Sequence

import polars as pl

from model.version.attributes import Attributes, Value


def most_frequent(seen: pl.DataFrame) -> dict[str, Value]:
    """Every item's most frequent value by the item's text; of equally frequent values the smallest. Items without a
    value are left out.

    Args:
        seen: `item_id`, `attribute`, and `count`: how often the log has them together. In any order.
    """
    with_value = seen.filter(pl.col("attribute").is_not_null() & (pl.col("count") > 0))
    chosen = with_value.sort("count", "attribute", descending=[True, False]).unique(
        "item_id", keep="first", maintain_order=True
    )
    return dict(zip(chosen["item_id"].cast(pl.String).to_list(), chosen["attribute"].to_list(), strict=True))


def of_catalogue(
    item_ids: Sequence[Value],
    value_of: dict[str, Value],
    known: Attributes | None = None,
    known_ids: Sequence[Value] = (),
) -> Attributes:
    """The attributes of a catalogue: the values of the log in order, then those that only an earlier version knows.

    Args:
        item_ids: the items of rows 1..V.
        value_of: values by items' texts, as `most_frequent` gives them.
        known: the attributes of an earlier version, whose items are `known_ids`. All its values stay. An item without a
            value in the log keeps the value it had.
    """
    earlier = {} if known is None else known.by_item(known_ids)
    texts = [str(item) for item in item_ids]
    now = {text: value_of[text] for text in texts if text in value_of}
    values = sorted(set(now.values()))  # of one column, so all of one type
    in_log = {str(value) for value in values}
    values += [value for value in (() if known is None else known.values) if str(value) not in in_log]
    number = {str(value): index for index, value in enumerate(values, start=1)}
    whole = {**earlier, **now}
    return Attributes(tuple(values), tuple(number[str(whole[text])] if text in whole else 0 for text in texts))
