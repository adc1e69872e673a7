"""Recommendations of any model version for whole histories, folded and ranked as a worker would: segment by segment,
then from working memory.

A model that uses time also gets `times`: as many epoch ms as each history has items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.version.padding import padded
from model.version.runtime import Floats, Ranked, Rows, Runtime

USERS = 256
"""The most users of a batch. There are fewer if their lists are long, see `LIST_FLOATS`."""

LIST_FLOATS = 16_000_000
"""Scores in memory at a time: 64 MB, and twice that for their rows."""


@dataclass(frozen=True, slots=True)
class UserStates:
    """Users after all their full segments were folded: `memory` (B, S), and `hidden` (B, d) of the last fold, zeros for
    users without one.
    """

    memory: Floats
    hidden: Floats


def catalogue_rows(runtime: Runtime, item_ids: Sequence[int | str]) -> Rows:
    """The model's row of each item of a log, (I,); for items that it does not know, the row for unknown items. `42` and
    `"42"` are the same item.
    """
    row = {str(item): at for at, item in enumerate(runtime.item_ids, start=1)}
    return np.array([row.get(str(item), runtime.oov_row) for item in item_ids], np.int64)


def batches(lengths: Rows, width: int) -> list[NDArray[np.intp]]:
    """Indices of users in batches: with histories of about the same length, and so few that lists of `width` items
    fit.
    """
    size = int(np.clip(LIST_FLOATS // max(1, width), 1, USERS))
    order = np.argsort(lengths, kind="stable")
    return [order[at : at + size] for at in range(0, len(order), size)]


def fold(runtime: Runtime, histories: Sequence[Rows], times: Sequence[Rows] | None = None) -> UserStates:
    """Fold the full segments of B histories of item rows, one after another, oldest first."""
    L = runtime.segment_length
    folds = np.array([len(history) // L for history in histories], np.int64)
    memory = np.zeros((len(histories), runtime.state_floats), np.float32)
    hidden = np.zeros((len(histories), 0), np.float32)
    for h in range(int(folds.max(initial=0))):
        at = np.flatnonzero(folds > h)
        here = slice(h * L, (h + 1) * L)
        made = runtime.fold(
            memory[at], _stacked(histories, at, here), None if times is None else _stacked(times, at, here)
        )
        if h == 0:
            hidden = np.zeros((len(histories), made.hidden.shape[1]), np.float32)
        memory[at], hidden[at] = made.memory, made.hidden
    return UserStates(memory, hidden)


def fold_at_once(runtime: Runtime, histories: Sequence[Rows], times: Sequence[Rows] | None = None) -> UserStates:
    """The states after one call over all full segments of each user."""
    L = runtime.segment_length
    folds = np.array([len(history) // L for history in histories], np.int64)
    memory = np.zeros((len(histories), runtime.state_floats), np.float32)
    hidden: Floats | None = None
    for number in np.unique(folds[folds > 0]).tolist():
        same = np.flatnonzero(folds == number)
        # Attention over n items needs memory in proportion to n²: so many users as need no more than one with 1,000.
        size = int(np.clip(1_000_000 // (number * L) ** 2, 1, USERS))
        for at in range(0, len(same), size):
            part = same[at : at + size]
            whole = slice(number * L)
            made = runtime.fold(
                memory[part], _stacked(histories, part, whole), None if times is None else _stacked(times, part, whole)
            )
            if hidden is None:
                hidden = np.zeros((len(histories), made.hidden.shape[1]), np.float32)
            memory[part], hidden[part] = made.memory, made.hidden
    return UserStates(memory, np.zeros((len(histories), 0), np.float32) if hidden is None else hidden)


def rank(
    runtime: Runtime,
    states: UserStates,
    histories: Sequence[Rows],
    k: int,
    times: Sequence[Rows] | None = None,
    query_time: Rows | None = None,
) -> Ranked:
    """The k best items for B users, without the items of their own history, as a worker ranks them.

    If working memory is empty, a list comes from the hidden state of the fold. A user with neither a memory nor an item
    that the model knows gets the popularity list. With a `query_time`, (B,) epoch ms, the model knows when its target
    happens, which no worker does. The hidden state of a fold does not depend on that time, so then every list comes
    from memory.
    """
    L = runtime.segment_length
    lengths = np.array([len(history) % L for history in histories], np.int64)
    folds = np.array([len(history) // L for history in histories], np.int64)
    working = padded(_newest(histories, lengths))
    when = None if times is None else padded(_newest(times, lengths))
    knows_nothing = ~states.memory.any(axis=1) & ~((working > 0) & (working != runtime.oov_row)).any(axis=1)
    exclude = padded(histories)
    k = min(k, runtime.manifest.n_items)
    ranked = Ranked(np.empty((len(histories), k), np.int64), np.empty((len(histories), k), np.float32))
    after_fold, others = np.arange(0), np.arange(len(histories))
    if query_time is None:
        after_fold, others = np.flatnonzero((lengths == 0) & (folds > 0)), np.flatnonzero((lengths > 0) | (folds == 0))
    if len(after_fold):
        made = runtime.rank(states.hidden[after_fold], k, exclude[after_fold])
        ranked.rows[after_fold], ranked.scores[after_fold] = made.rows, made.scores
    if len(others):
        made = runtime.recommend(
            states.memory[others],
            working[others],
            np.where(knows_nothing, 0, lengths)[others],
            k,
            exclude[others],
            None if when is None else when[others],
            None if query_time is None else query_time[others],
        )
        ranked.rows[others], ranked.scores[others] = made.rows, made.scores
    return ranked


def target_ranks(ranked: Ranked, targets: Rows) -> NDArray[np.float64]:
    """The rank of each target row (B,) in its list, 1 the best. Infinity: the target is not in the list, or
    excluded.
    """
    found = (ranked.rows == targets[:, None]) & np.isfinite(ranked.scores)
    return np.where(found.any(axis=1), found.argmax(axis=1) + 1.0, np.inf)


def _stacked(histories: Sequence[Rows], users: NDArray[np.intp], part: slice) -> Rows:
    """The same part of the histories of some users."""
    return np.stack([histories[i][part] for i in users.tolist()])


def _newest(histories: Sequence[Rows], lengths: Rows) -> list[Rows]:
    """The newest items of each history, `lengths` of them."""
    return [history[len(history) - length :] for history, length in zip(histories, lengths.tolist(), strict=True)]
