"""The question of an offline evaluation: the history of every user up to some point, and the interaction that came
next.

There is one target per user, so users are independent draws. Nothing here depends on a model: items are numbered by the
log, and every model has the same targets.
"""

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.errors import EvaluationImpossible
from model.log import in_time_order

Rows = NDArray[np.int64]
SplitName = Literal["last-out", "time"]


@dataclass(frozen=True, slots=True)
class Holdout:
    """A log cut into histories and targets.

    Interactions are grouped by user, oldest first; of the same millisecond, in file order. The history of user u is
    `items[start[u] : end[u]]`. Items are numbered by how often they are in all histories, most frequent first, of
    equally frequent ones by id. Items with the number `n_known` or above are in no history.
    """

    split: str
    user_ids: tuple[int | str, ...]
    item_ids: tuple[int | str, ...]
    n_known: int
    items: Rows  # (n,)
    times: Rows  # (n,) epoch ms
    start: Rows  # (U,)
    end: Rows  # (U,)
    asked: Rows  # (N,) the users with a target, which is `items[end]`; N targets

    @property
    def target(self) -> Rows:
        return self.items[self.end[self.asked]]

    @property
    def target_ms(self) -> Rows:
        return self.times[self.end[self.asked]]

    @property
    def history_length(self) -> Rows:
        """The length of the history of each user with a target, (N,)."""
        return (self.end - self.start)[self.asked]

    def history(self, user: int, window: int | None = None) -> Rows:
        """The history of a user, or its newest `window` items."""
        return self.items[self._slice(user, window)]

    def history_ms(self, user: int, window: int | None = None) -> Rows:
        """When the items of `history` happened."""
        return self.times[self._slice(user, window)]

    def _slice(self, user: int, window: int | None) -> slice:
        start, end = int(self.start[user]), int(self.end[user])
        return slice(start if window is None else max(start, end - window), end)

    def target_sha256(self) -> str:
        """The hash of a line `user,item,epoch ms` for every target, UTF-8, in the order of user ids. Equal hashes mean
        equal targets.
        """
        digest = hashlib.sha256()
        for user, item, ms in zip(self.asked.tolist(), self.target.tolist(), self.target_ms.tolist(), strict=True):
            digest.update(f"{self.user_ids[user]},{self.item_ids[item]},{ms}\n".encode())
        return digest.hexdigest()

    def drawn(self, users: int, seed: int) -> "Holdout":
        """The same with only so many of the users who have a target, drawn with a seed."""
        if users >= len(self.asked):
            return self
        chosen = np.random.default_rng(seed).permutation(len(self.asked))[:users]
        return replace(self, asked=self.asked[np.sort(chosen)])


def cut(log: pl.LazyFrame, split: SplitName, at: float = 0.9) -> Holdout:
    """Cut a log.

    Args:
        log: `user_id`, `item_id`, `timestamp` (ms), as `model.log.read_log` gives it.
        split: `last-out`: the last interaction of every user is a target, and those before it are the history. `time`:
            histories end with the first share `at` of the log in time order, and the first interaction of every user
            after that is a target.
        at: only for `time`.

    Raises:
        EvaluationImpossible: there is no target, or no history.
    """
    frame = in_time_order(log.select("user_id", "item_id", "timestamp")).collect()
    user_ids, item_ids = (frame.select(pl.col(name).unique().sort()) for name in ("user_id", "item_id"))
    coded = frame.join(user_ids.with_row_index("user"), on="user_id", how="left", maintain_order="left").join(
        item_ids.with_row_index("item"), on="item_id", how="left", maintain_order="left"
    )
    user, item = (coded[name].to_numpy().astype(np.int64) for name in ("user", "item"))
    by_user = np.argsort(user, kind="stable")
    counts = np.bincount(user, minlength=len(user_ids))
    start = np.cumsum(counts) - counts
    if split == "last-out":
        end, has_target = start + counts - 1, np.ones(len(counts), bool)
        described = "leave-last-out: the last interaction of each user is the target"
    else:
        rows = round(len(user) * at)
        end = start + np.bincount(user[:rows], minlength=len(user_ids))
        has_target = end < start + counts
        described = f"by time: histories end with the first {at:.0%} of the log; the target is the first interaction of each user after that"
        if rows and rows < len(frame):
            described += f" (from {frame['timestamp'][rows]} ms)"
    asked = np.flatnonzero(has_target)
    if len(user) < 2:
        raise EvaluationImpossible(
            "the log has one interaction. An evaluation needs two: one that is predicted, and one before it"
        )
    if len(asked) == 0:
        # Rounded down, so that at least one interaction of any number of them comes after it.
        latest = math.floor(100 * (len(user) - 1) / len(user)) / 100
        raise EvaluationImpossible(
            f"no user has an interaction after the first {at:.0%} of the log, {len(user)} interactions: --at {latest:g} works"
        )
    if (end == start).all():
        before = "before their last one" if split == "last-out" else f"in the first {at:.0%} of the log"
        raise EvaluationImpossible(
            f"no user has an interaction {before}, so there is nothing to predict from: --split time --at 0.5 works"
        )

    # Whether each interaction is part of a history, in the order of `by_user`.
    in_history = np.arange(len(user)) - np.repeat(start, counts) < np.repeat(end - start, counts)
    item = item[by_user]
    seen = np.bincount(item[in_history], minlength=len(item_ids))
    popular_first = np.argsort(-seen, kind="stable")
    number = np.empty(len(item_ids), np.int64)
    number[popular_first] = np.arange(len(item_ids))
    return Holdout(
        split=described,
        user_ids=tuple(user_ids["user_id"].to_list()),
        item_ids=tuple(item_ids["item_id"].gather(popular_first).to_list()),
        n_known=int((seen > 0).sum()),
        items=number[item],
        times=coded["timestamp"].to_numpy().astype(np.int64)[by_user],
        start=start,
        end=end,
        asked=asked,
    )
