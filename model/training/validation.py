"""How well a network predicts what came next, folded and ranked as a worker would: segment by segment, then from
working memory.

It calls only the methods that every kind has, those of `model.networks.serving`. As in a stream, no model knows when
the target happens.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.networks.serving import Ranker
from model.training.dataset import Dataset
from model.version.manifest import Metrics

CHUNK = 64
"""Targets per call."""
LIST_LENGTH = 10

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Targets:
    """What must be predicted: interaction number `position` (≥ 1) of `user`, from everything before it. Those with the
    fewest segments come first.
    """

    user: Rows
    position: Rows


def choose(
    dataset: Dataset, rng: np.random.Generator, most: int, segment_length: int, *, with_memory: bool = False
) -> Targets:
    """At most `most` interactions of the validation part that have a history: one per user, then a second one, and so
    on. `with_memory`: only those that are predicted from a memory and from at least one item of working memory.
    """
    first = np.maximum(dataset.trained, 1)
    held_out = np.maximum(np.diff(dataset.start) - first, 0)
    user = np.repeat(np.arange(len(held_out)), held_out)
    position = first[user] + np.arange(len(user)) - (np.cumsum(held_out) - held_out)[user]
    if with_memory:
        remembered = (position > segment_length) & (position % segment_length > 0)
        user, position = user[remembered], position[remembered]
    order = rng.permutation(len(user))
    order = order[np.argsort(user[order], kind="stable")]
    owner = user[order]
    turn = np.arange(len(owner)) - np.searchsorted(owner, owner)
    chosen = order[np.argsort(turn, kind="stable")[:most]]
    chosen = chosen[np.argsort(position[chosen] // segment_length, kind="stable")]
    return Targets(user[chosen], position[chosen])


def unreachable(dataset: Dataset, targets: Targets) -> tuple[int, int]:
    """How many targets no list can have: those that are not in the catalogue, and those that the user had before."""
    outside = repeated = 0
    for user, position in zip(targets.user.tolist(), targets.position.tolist(), strict=True):
        history = dataset.history(user)[: position + 1]
        if history[position] == dataset.oov_row:
            outside += 1
        elif (history[:position] == history[position]).any():
            repeated += 1
    return outside, repeated


def evaluate(serving: Ranker, dataset: Dataset, targets: Targets) -> Metrics:
    """HR@10 and NDCG@10 = 1/log2(rank + 1), over all items but the user's own earlier ones. The popularity list has the
    same rules. A target outside the catalogue counts as missed.

    Args:
        serving: a network that answers the contract, on the default device of torch.
    """
    popular = np.argsort(-dataset.popularity[1:], kind="stable") + 1
    chunks = [slice(at, at + CHUNK) for at in range(0, len(targets.user), CHUNK)]
    ranks = np.concatenate([_ranks(serving, dataset, popular, targets.user[at], targets.position[at]) for at in chunks])
    hits = ranks <= LIST_LENGTH
    gains = gains_of(ranks)
    return Metrics(
        targets=len(ranks),
        hr_at_10=float(hits[:, 0].mean()),
        ndcg_at_10=float(gains[:, 0].mean()),
        popularity_hr_at_10=float(hits[:, 1].mean()),
        popularity_ndcg_at_10=float(gains[:, 1].mean()),
    )


def gains_of(ranks: Rows) -> NDArray[np.float64]:
    """NDCG@10 of each rank."""
    gains: NDArray[np.float64] = np.where(ranks <= LIST_LENGTH, 1.0 / np.log2(ranks + 1.0), 0.0)
    return gains


def _ranks(serving: Ranker, dataset: Dataset, popular: Rows, user: Rows, position: Rows) -> Rows:
    """(B, 2): the rank of the target, 1 the best, by the model and by popularity; LIST_LENGTH + 1 if it is in no
    list.
    """
    items = np.zeros((len(user), int(position.max())), np.int64)
    times = np.zeros_like(items) if serving.spec()["uses_time"] else None
    target = np.empty(len(user), np.int64)
    best_known = np.zeros((len(user), LIST_LENGTH), np.int64)
    for i, (u, p) in enumerate(zip(user, position, strict=True)):
        history = dataset.history(u)
        items[i, :p], target[i] = history[:p], history[p]
        if times is not None:
            times[i, :p] = dataset.history_ms(u)[:p]
        ahead = popular[: LIST_LENGTH + p]
        ahead = ahead[~np.isin(ahead, items[i, :p])][:LIST_LENGTH]
        best_known[i, : len(ahead)] = ahead
    with torch.inference_mode():
        lists = _lists(serving, torch.from_numpy(items), None if times is None else torch.from_numpy(times), position)
    return np.stack([rank_of(lists, target), rank_of(best_known, target)], 1)


def _lists(serving: Ranker, items: Tensor, times: Tensor | None, position: Rows) -> Rows:
    """What is recommended after the first `position` items, (B, ≤ LIST_LENGTH); 0 where no items are left."""
    L = serving.spec()["segment_length"]
    memory = serving.initial_memory(len(position))
    items = items.to(memory.device)
    times = None if times is None else times.to(memory.device)
    lists = np.zeros((len(position), min(LIST_LENGTH, serving.spec()["n_items"])), np.int64)
    for h in range(int(position.max()) // L):
        folds = torch.from_numpy(np.flatnonzero(position // L > h)).to(memory.device)
        lengths = torch.full((len(folds),), L)
        segment = slice(h * L, (h + 1) * L)
        when = None if times is None else times[folds, segment]
        memory[folds], hidden = serving.update(memory[folds], items[folds, segment], lengths, when)
        here = np.flatnonzero(position == (h + 1) * L)
        if len(here):
            of = torch.from_numpy(np.searchsorted(folds.cpu().numpy(), here)).to(memory.device)
            lists[here] = rows_of(
                serving.rank(hidden[of], LIST_LENGTH, items[torch.from_numpy(here).to(memory.device)])
            )
    rest = np.flatnonzero(position % L)
    if len(rest):
        new = torch.from_numpy(position[rest] % L).to(memory.device)
        where = torch.from_numpy(rest).to(memory.device)
        at = torch.arange(int(new.max()), device=memory.device)
        column = (torch.from_numpy(position[rest]).to(memory.device) - new)[:, None] + at
        column = column.clamp(max=items.size(1) - 1)
        working = items[where].gather(1, column).masked_fill(at >= new[:, None], 0)
        when = None if times is None else times[where].gather(1, column)
        lists[rest] = rows_of(serving.recommend(memory[where], working, new, LIST_LENGTH, when, None, items[where]))
    return lists


def rows_of(ranked: tuple[Tensor, Tensor]) -> Rows:
    """The rows of lists; 0 where no items are left."""
    rows, scores = ranked
    found: Rows = rows.masked_fill(scores == float("-inf"), 0).cpu().numpy()
    return found


def rank_of(lists: Rows, target: Rows) -> Rows:
    """The rank of each target in its list, from 1; LIST_LENGTH + 1 if it is not there."""
    there = lists == target[:, None]
    return np.where(there.any(axis=1), there.argmax(axis=1) + 1, LIST_LENGTH + 1)
