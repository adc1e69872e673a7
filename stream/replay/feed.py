"""One shard's interactions as the polls of a worker, and where each interaction's list is scored."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from state.interaction import NAMED, item_key
from stream.decode import Flat, Polled

Ints = NDArray[np.int64]
Places = NDArray[np.int32]
"""Numbers of users or of interactions: a shard has fewer than two billion."""


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """The interactions of one shard, in the order of offsets. All arrays have one number for each."""

    partition: int
    users: Sequence[bytes]
    """The ids of the users, by their numbers in `user`."""
    user: Places
    items: Ints
    """Item keys."""
    names: dict[int, str]
    """Hashed item key → text."""
    times: Ints
    offsets: Ints
    by_user: Places
    """The interactions of the first user, oldest first, then those of the second, …"""
    place: Places
    """Where an interaction is in `by_user`."""
    begins: Places
    ends: Places
    """Where its user's interactions begin and end in `by_user`."""

    @staticmethod
    def read(path: Path, partition: int) -> "Feed":
        """Read a shard (`stream.replay.ordered`)."""
        users, user = _numbered(pl.read_parquet(path, columns=["user_id"])["user_id"])
        texts, item = _numbered(pl.read_parquet(path, columns=["item_id"])["item_id"])
        keys = [item_key(text) for text in texts]
        by_user = np.argsort(user, kind="stable").astype(np.int32)
        place = np.empty_like(by_user)
        place[by_user] = np.arange(len(by_user), dtype=np.int32)
        counts = np.bincount(user, minlength=len(users)).astype(np.int32)
        ends = np.cumsum(counts, dtype=np.int32)[user]
        numbers = pl.read_parquet(path, columns=["offset", "timestamp"])
        return Feed(
            partition,
            [text.encode() for text in users],
            user,
            np.array(keys, np.int64)[item],
            {key: text for key, text in zip(keys, texts, strict=True) if key >= NAMED},
            numbers["timestamp"].to_numpy(),
            numbers["offset"].to_numpy(),
            by_user,
            place,
            ends - counts[user],
            ends,
        )

    def __len__(self) -> int:
        return len(self.offsets)

    def polled(self, start: int, end: int, without: frozenset[int] = frozenset()) -> Polled:
        """Some consecutive interactions as one poll.

        Args:
            without: offsets that are left out: the model fails on them.
        """
        runs: dict[bytes, Flat] = {}
        users = self.users
        at = np.arange(start, end)
        if without:
            at = at[~np.isin(self.offsets[start:end], list(without))]
        items = self.items[at].tolist()
        numbers, times, offsets = (column[at].tolist() for column in (self.user, self.times, self.offsets))
        for number, item, time, offset in zip(numbers, items, times, offsets, strict=True):
            user = users[number]
            if (run := runs.get(user)) is None:
                runs[user] = [item, time, offset]
            else:
                run += (item, time, offset)
        names = {key: self.names[key] for key in set(items) if key >= NAMED}
        return Polled(
            records=len(items),
            runs={self.partition: runs},
            items=items,
            names={self.partition: names},
            next_offsets={self.partition: int(self.offsets[end - 1]) + 1},
        )

    def at(self, offset: int) -> int:
        """The first interaction that has this offset or a later one."""
        return int(np.searchsorted(self.offsets, offset))

    def following(self, offsets: Sequence[int], count: int) -> tuple[Ints, Places]:
        """The next interactions of the users of some interactions, at most `count` of each.

        Args:
            offsets: of the interactions.

        Returns:
            For each that follows: which of `offsets` it follows, and which interaction it is.
        """
        at = np.searchsorted(self.offsets, np.array(offsets, np.int64))
        first = self.place[at] + 1
        counts = np.minimum(count, self.ends[at] - first)
        owners = np.repeat(np.arange(len(at)), counts)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        return owners, self.by_user[first[owners] + within]


def borders(feed: Feed, chunk: int, switches: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and the last interaction (exclusive) of every step. They depend on the shard alone: with other borders,
    batches would differ, and with them the last digits of scores.
    """
    cuts = sorted({*range(0, len(feed), chunk), *(at for at in switches if 0 < at < len(feed)), len(feed)})
    yield from pairwise(cuts)


def _numbered(column: pl.Series) -> tuple[list[str], Places]:
    """The distinct texts of a column in the order in which they appear, and the number of each row's text."""
    texts = column.unique(maintain_order=True)
    number = pl.DataFrame({"text": texts, "number": np.arange(len(texts), dtype=np.int32)})
    rows = pl.DataFrame({"text": column}).join(number, on="text", how="left", maintain_order="left")
    return texts.to_list(), rows["number"].to_numpy()
