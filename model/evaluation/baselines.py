"""Rankings that are counted from the log. A model should be better than they are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from model.evaluation.holdout import Holdout, Rows

POPULARITY: Final = "popularity"


@dataclass(frozen=True, slots=True)
class Listed:
    """The rank of a target, 1 the best, infinity if it is never listed; and the first ten items of the list."""

    rank: float
    first: Rows


@dataclass(frozen=True, slots=True)
class Baseline:
    """`ask(history, target)` ranks all items that are in the history of any user, without those of the given
    history.
    """

    name: str
    description: str
    ask: Callable[[Rows, int], Listed]


def baselines(holdout: Holdout) -> list[Baseline]:
    """The baselines, counted from the histories of all users, also of those without a target; never from a target."""
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
        Baseline(POPULARITY, "the items that are most often in the histories of all users", popular),
        Baseline(
            "last item",
            "the items that most often come directly after the user's last item in the histories of all users, then the most popular ones",
            last_item,
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Followers:
    """`items[start[i] : start[i + 1]]` came directly after item i, most often first, of equal counts the more popular
    first.
    """

    items: Rows
    start: Rows

    @staticmethod
    def of(holdout: Holdout) -> "_Followers":
        at = np.arange(len(holdout.items))
        # The end of the history that an interaction is in or after. The pair (at, at + 1) counts if both are inside.
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
    """The list `ahead`, then all other items by popularity, without the history. Items are numbered by popularity."""
    ahead = ahead[~np.isin(ahead, history)]
    left_out = np.unique(np.concatenate([ahead, history]))
    # So many of the most popular items are enough for ten, whichever are left out.
    rest = np.setdiff1d(np.arange(min(n_known, len(left_out) + 10)), left_out, assume_unique=True)
    first = np.concatenate([ahead, rest])[:10]
    if target >= n_known or np.isin(target, history):
        return Listed(np.inf, first)
    found = np.flatnonzero(ahead == target)
    if len(found):
        return Listed(float(found[0] + 1), first)
    return Listed(float(len(ahead) + target + 1 - np.searchsorted(left_out, target)), first)
