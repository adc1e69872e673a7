"""What an evaluation's models have to beat: rankings that anybody can count from the log."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from model.evaluation.holdout import Holdout, Rows


@dataclass(frozen=True, slots=True)
class Listed:
    """A target's rank, 1 the best and infinity where it is never listed, and the first ten items."""

    rank: float
    first: Rows


@dataclass(frozen=True, slots=True)
class Baseline:
    """`ask(history, target)` ranks all items that are in anybody's history, but not those of the given one."""

    name: str
    description: str
    ask: Callable[[Rows, int], Listed]


def baselines(holdout: Holdout) -> list[Baseline]:
    """Counted from the histories of all users of the log, those who are not asked about among them; never from a
    target.
    """
    followers = _Followers.of(holdout)

    def popular(history: Rows, target: int) -> Listed:
        return _listed(np.empty(0, np.int64), history, target, holdout.n_known)

    def last_item(history: Rows, target: int) -> Listed:
        return _listed(
            followers.after(int(history[-1])) if len(history) else np.empty(0, np.int64),
            history,
            target,
            holdout.n_known,
        )

    return [
        Baseline("popularity", "the items that are most often in the histories of all users", popular),
        Baseline(
            "last item",
            "the items that most often come directly after the user's last item in the histories of all users, then the most popular ones",
            last_item,
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Followers:
    """`items[start[i] : start[i + 1]]` came directly after item i, most often first, ties by popularity."""

    items: Rows
    start: Rows

    @staticmethod
    def of(holdout: Holdout) -> "_Followers":
        at = np.arange(len(holdout.items))
        # The end of the history that an interaction is in or after; the pair (at, at + 1) counts when both are inside.
        end = np.repeat(holdout.end, np.diff(np.append(holdout.start, len(holdout.items))))
        first = np.flatnonzero(at + 1 < end)
        n_items = len(holdout.item_ids)
        pairs, counts = np.unique(holdout.items[first] * n_items + holdout.items[first + 1], return_counts=True)
        item, follower = np.divmod(pairs, n_items)
        order = np.lexsort((-counts, item))  # stable: of equal counts, the more popular first
        return _Followers(follower[order], np.searchsorted(item[order], np.arange(n_items + 1)))

    def after(self, item: int) -> Rows:
        return self.items[self.start[item] : self.start[item + 1]]


def _listed(ahead: Rows, history: Rows, target: int, n_known: int) -> Listed:
    """The list `ahead`, then all other items by popularity, less the history; item numbers are their place by
    popularity.
    """
    ahead = ahead[~np.isin(ahead, history)]
    gone = np.unique(np.concatenate([ahead, history]))
    # Of the most popular items, at most as many as are gone can be missing.
    rest = np.setdiff1d(np.arange(min(n_known, len(gone) + 10)), gone, assume_unique=True)
    first = np.concatenate([ahead, rest])[:10]
    if target >= n_known or np.isin(target, history):
        return Listed(np.inf, first)
    place = np.flatnonzero(ahead == target)
    if len(place):
        return Listed(float(place[0] + 1), first)
    return Listed(float(len(ahead) + target + 1 - np.searchsorted(gone, target)), first)
