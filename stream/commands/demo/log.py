"""The event log that the demo plays: a synthetic one, or a sample of the user's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from model.log import in_time_order
from model.synthetic import SyntheticLog, generate
from stream.commands.demo.settings import SEGMENT_LENGTH
from stream.commands.log_options import LogOptions

MOST_INTERACTIONS: Final = 120_000
SHOWN_USERS: Final = 3


@dataclass(slots=True)
class Log:
    """What the demo plays: interactions in time order, with titles and genres of the items, where the log has them."""

    name: str
    interactions: pl.DataFrame
    titles: Mapping[Any, str]
    genres: Mapping[Any, str]


def synthetic() -> Log:
    made = generate(SyntheticLog())
    items = made.items
    titles = dict(zip(items["item_id"], items["title"], strict=True))
    return Log("synthetic", made.interactions, titles, dict(zip(items["item_id"], items["genre"], strict=True)))


def sampled(path: str, reading: LogOptions) -> Log:
    """A log, or a sample of its users if it is so long that the demo would take long."""
    frame = in_time_order(reading.open(path).interactions).collect()
    name = Path(path).name
    if len(frame) > MOST_INTERACTIONS:
        users = frame["user_id"].unique(maintain_order=True).shuffle(seed=0)
        chosen = users.head(max(2, int(len(users) * MOST_INTERACTIONS / len(frame))))
        frame = frame.filter(pl.col("user_id").is_in(chosen.implode()))
        name += f" (a sample of {len(chosen):,} of {len(users):,} users)"
    return Log(name, frame.with_columns(pl.col("user_id").cast(pl.String)), {}, {})


def shown_users(log: Log, cut: int) -> list[str]:
    """A few users with a past and with something to come."""
    past = log.interactions.head(cut).group_by("user_id").len()
    coming = log.interactions.tail(len(log.interactions) - cut).group_by("user_id").len(name="coming")
    both = past.join(coming, on="user_id").filter((pl.col("len") >= 3 * SEGMENT_LENGTH) & (pl.col("coming") >= 15))
    chosen = (both if len(both) >= SHOWN_USERS else past).sort("len", "user_id", descending=[True, False])
    return [str(user) for user in chosen["user_id"].gather_every(max(1, len(chosen) // SHOWN_USERS)).head(SHOWN_USERS)]
