"""How well a network predicts what came next, asked the way the worker asks: segment by segment, then from working memory."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.dataset import Dataset
from model.manifest import Metrics
from model.serving import Ranker

CHUNK = 64
"""Targets a call."""

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Targets:
    """What is to be predicted: interaction number `position` (≥ 1) of `user`, from everything before it. Fewest segments first."""

    user: Rows
    position: Rows


def choose(dataset: Dataset, rng: np.random.Generator, most: int, segment_length: int) -> Targets:
    """At most `most` interactions of the validation part that have a history: one of every user, then a second, and so on."""
    counts = np.diff(dataset.start)
    user = np.repeat(np.arange(len(counts)), counts)
    position = np.arange(len(user)) - dataset.start[user]
    held_out = np.flatnonzero((position >= dataset.trained[user]) & (position >= 1))
    held_out = rng.permutation(held_out)
    held_out = held_out[np.argsort(user[held_out], kind="stable")]
    owner = user[held_out]
    turn = np.arange(len(owner)) - np.searchsorted(owner, owner)
    chosen = held_out[np.argsort(turn, kind="stable")[:most]]
    chosen = chosen[np.argsort(position[chosen] // segment_length, kind="stable")]
    return Targets(user[chosen], position[chosen])


def evaluate(serving: Ranker, dataset: Dataset, targets: Targets) -> Metrics:
    """HR@10 and NDCG@10 = 1/log2(rank + 1), over all items but the user's own earlier ones; the popularity list by the same rules.

    A target outside the catalogue counts as missed.
    """
    ranks = np.concatenate(
        [
            _ranks(serving, dataset, targets.user[at : at + CHUNK], targets.position[at : at + CHUNK])
            for at in range(0, len(targets.user), CHUNK)
        ]
    )
    hits = ranks <= 10
    gains = np.where(hits[:, 0], 1.0 / np.log2(ranks[:, 0] + 1.0), 0.0)
    return Metrics(
        targets=len(ranks), hr_at_10=float(hits[:, 0].mean()), ndcg_at_10=float(gains.mean()), popularity_hr_at_10=float(hits[:, 1].mean())
    )


def _ranks(serving: Ranker, dataset: Dataset, user: Rows, position: Rows) -> Rows:
    """(B, 2): the target's rank, 1 the best, by the model and by popularity."""
    L = serving.segment_length
    items = np.zeros((len(user), int(position.max())), np.int64)
    target = np.empty(len(user), np.int64)
    for i, (u, p) in enumerate(zip(user, position, strict=True)):
        history = dataset.history(u)
        items[i, :p], target[i] = history[:p], history[p]
    with torch.inference_mode():
        hidden = _after(serving, torch.from_numpy(items), position, L)
        known = torch.from_numpy(items).masked_fill(torch.from_numpy(items) > serving.n_items, 0)
        popularity = serving.popularity.expand(len(user), -1)
        return np.stack(
            [_rank(scores, known, torch.from_numpy(target), serving.n_items) for scores in (serving.scores(hidden), popularity)], 1
        )


def _after(serving: Ranker, items: Tensor, position: Rows, L: int) -> Tensor:
    """The hidden state the worker would rank by after the first `position` items, (B, d)."""
    memory = serving.initial_memory(len(position))
    hidden = torch.empty(len(position), serving.d)
    for h in range(int(position.max()) // L):
        folds = torch.from_numpy(np.flatnonzero(position // L > h))
        memory[folds], hidden[folds] = serving.update(memory[folds], items[folds, h * L : (h + 1) * L], torch.full((len(folds),), L))
    rest = np.flatnonzero(position % L)
    if len(rest):
        working = np.zeros((len(rest), L), np.int64)
        for i, b in enumerate(rest):
            p = int(position[b])
            working[i, : p % L] = items[b, p - p % L : p]
        lengths = torch.from_numpy(position[rest] % L)
        hidden[rest] = serving.encode(memory[rest], torch.from_numpy(working)[:, : int(lengths.max())], lengths)
    return hidden


def _rank(scores: Tensor, known: Tensor, target: Tensor, n_items: int) -> Rows:
    """1 + how many items outrank the target, by score and then row; one more than there are items if it cannot be recommended."""
    scores = scores.scatter(1, known, float("-inf"))
    scores[:, 0] = float("-inf")
    inside = target.masked_fill(target > n_items, 0)
    own = scores.gather(1, inside[:, None])
    ahead = (scores > own) | ((scores == own) & (torch.arange(n_items + 1) < inside[:, None]))
    rank = torch.where(own[:, 0] == float("-inf"), n_items + 1, ahead.sum(1) + 1)
    return rank.numpy()
