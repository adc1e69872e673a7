"""Item ids that give away what comes next.

A log may have been joined with what it should predict: the id of an item then says, or encodes, which one follows. Any
model learns it, and no worker will see it. Two things are looked for. A *lookup*: what followed an item most often, in
the earlier half of the interactions, follows it in the later half. A *shared part*: some part of an id is another part
of the next id, and not of the one before.
"""

from itertools import product
from typing import Final

import polars as pl

from model.audit.finding import Finding, graded, share
from model.audit.wording import percent
from model.log import Log

_DRAWN: Final = 1_000_000
"""Interactions that are looked at: those of some users, drawn by the hash of their ids."""
_COMPARED: Final = 100_000
"""Pairs whose ids are taken apart, the newest ones."""
_LEAST: Final = 100
"""With fewer pairs, a share says nothing."""
_LEAST_ITEMS: Final = 10
"""Among fewer items, the next one is often known."""
_PREDICTABLE: Final = (0.5, 0.9)
_PARTS: Final = 3
"""Parts of an id of text that are looked at: the first ones."""
_DIGITS: Final = (1, 2, 3, 4, 5, 6, 9)
"""An id that is an integer may be cut before so many of its digits."""


def finding(log: Log) -> Finding:
    """Whether an item says which one comes next."""
    pairs = _pairs(_drawn(log))
    if len(pairs) < _LEAST or pairs["item"].n_unique() < _LEAST_ITEMS:
        return Finding("next item", "OK", "too few to tell", "Whether an item says which one comes next.")
    asked, right = _looked_up(pairs)
    looked_up = share(right, asked) if asked >= _LEAST else 0.0
    part = _shared_part(pairs.tail(_COMPARED))
    value = looked_up
    figure = f"{percent(right, asked)} by a lookup of the item before"
    words = "What most often followed an item is what follows it now."
    if part > looked_up and part >= _PREDICTABLE[0]:
        value = part
        figure = f"{part:.1%} have a part of the id before"
        words = "A part of an item's id is a part of the next id, but not of the one before."
    verdict = graded(value, *_PREDICTABLE)
    if verdict == "FAIL":
        words += (
            " The ids give away what comes next, or a program went through a list. A model learns it, and is useless."
        )
    elif verdict == "attention":
        words += " Compare models with this lookup: episodes in their order are like this, and so are ids that leak."
    return Finding("next item", verdict, figure, words, value)


def _drawn(log: Log) -> pl.DataFrame:
    """All interactions of some users, by user and time."""
    rows = log.interactions.select("user_id", "item_id", "timestamp").with_row_index("row")
    every = max(1, -(-log.rows // _DRAWN))
    for number in range(every):
        drawn = rows if every == 1 else rows.filter(pl.col("user_id").hash(seed=3) % every == number)
        found = drawn.collect(engine="streaming")
        if len(found) > _LEAST:  # a log of few users may have none with this hash
            break
    return found.sort("user_id", "timestamp", "row")


def _pairs(drawn: pl.DataFrame) -> pl.DataFrame:
    """An `item` and the user's `next` one, in the order of time. An item that is repeated at once is no pair."""
    return (
        drawn.select(
            item=pl.col("item_id"),
            next=pl.col("item_id").shift(-1),
            at=pl.col("timestamp").shift(-1),
            same=pl.col("user_id") == pl.col("user_id").shift(-1),
        )
        .filter(pl.col("same") & (pl.col("item") != pl.col("next")))
        .sort("at", maintain_order=True)
        .select("item", "next")
    )


def _looked_up(pairs: pl.DataFrame) -> tuple[int, int]:
    """How many pairs of the later half have an item of the earlier half, and of how many the lookup knows the next."""
    earlier, later = pairs.head(len(pairs) // 2), pairs.tail(len(pairs) - len(pairs) // 2)
    counts = earlier.group_by("item", "next").len().sort("len", "next", descending=[True, False])
    table = counts.group_by("item").agg(pl.col("next").first().alias("expected"))
    asked = later.join(table, on="item")
    return len(asked), int((asked["next"] == asked["expected"]).sum())


def _shared_part(pairs: pl.DataFrame) -> float:
    """Of all pairs, the largest share in which one part of the item's id is another part of the next id."""
    shares = _of_text() if pairs.schema["item"] == pl.String else _of_integers()
    return max(0.0, pairs.select(pl.max_horizontal(shares)).item() or 0.0)


def _of_text() -> list[pl.Expr]:
    """A share for each two places of parts. The share of pairs that have it the other way round is taken off, because
    ids of one category share a part both ways.
    """
    parts = {name: pl.col(name).str.extract_all("[0-9A-Za-z]+") for name in ("item", "next")}
    several = parts["item"].list.len() > 1

    def equal(i: int, j: int, one: str, other: str) -> pl.Expr:
        mine, its = (parts[name].list.get(at, null_on_oob=True) for name, at in ((one, i), (other, j)))
        return (several & (mine == its)).fill_null(value=False).mean()

    places = product((*range(_PARTS), -1), repeat=2)
    return [equal(i, j, "item", "next") - equal(i, j, "next", "item") for i, j in places if i != j]


def _of_integers() -> list[pl.Expr]:
    """A share for each place to cut: the lower digits of an item are the upper digits of the next one."""
    return [(pl.col("item") % 10**digits == pl.col("next") // 10**digits).mean() for digits in _DIGITS]
