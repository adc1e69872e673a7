"""Batches: windows of the training histories, and negatives.

Everything is a function of the seed, the epoch and the number of the batch, so training can resume at any batch of any
epoch.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.training.dataset import Dataset
from model.training.encoded_log import Rows

Placed = Literal["anywhere", "newest"]
NegativeMode = Literal["shared", "position"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a network learns from in one step; all int64.

    `items`: (B, n) item rows, right-padded, n a whole number of segments. `targets`: (B, n), the item after each, 0
    where none is learned. `negatives`: (J,) for all positions, or (B, n, J). `times`: (B, n + 1) epoch ms, the time of
    each item and of the last target; None if the dataset has no times.
    """

    items: Rows
    targets: Rows
    negatives: Rows
    times: Rows | None = None

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """How batches are cut from a dataset.

    A window has up to `segments` · `segment_length` inputs. With `placed` "anywhere", a window starts anywhere in a
    history that is longer than the window, and within the first segment of a shorter one. So no position is tied to the
    grid of segments. Longer histories have several windows an epoch. With "newest", a window is the end of a history,
    once an epoch. A batch has about `batch` · `segments` segments. The row for unknown items replaces `oov_share` of
    the inputs. `negatives` are drawn uniformly from the catalogue: so many for the whole batch ("shared"), or for each
    position ("position").
    """

    dataset: Dataset
    segment_length: int
    segments: int
    batch: int
    placed: Placed
    oov_share: float
    negatives: int
    negative_mode: NegativeMode
    seed: int

    def epoch(self, number: int) -> list[Rows]:
        """The windows of every batch of an epoch: (B, 3) user, first interaction and number of inputs.

        Every user of the training part appears. Windows with about equally many segments share a batch, so there is
        little padding.
        """
        rng = np.random.default_rng([self.seed, number])
        windows = self._windows(rng)
        return [windows[index] for index in self._batches(windows[:, 2], rng)]

    def cut(self, windows: Rows, epoch: int, number: int) -> Batch | None:
        """The batch of these windows, number `number` of the epoch; None if no position of it has a target."""
        rng = np.random.default_rng([self.seed, epoch, number])
        dataset = self.dataset
        user, first, inputs = windows.T
        width = -(-int(inputs.max()) // self.segment_length) * self.segment_length
        at = np.arange(width + 1)
        begin = dataset.start[user] + first
        index = np.minimum(begin[:, None] + at, (begin + inputs)[:, None])  # (B, width + 1)
        whole = np.take(dataset.rows, index).astype(np.int64)
        items, targets = whole[:, :-1].copy(), whole[:, 1:].copy()
        padding = at[:-1] >= inputs[:, None]
        items[padding] = 0
        targets[padding | (targets == dataset.oov_row)] = 0
        items[(rng.random(items.shape) < self.oov_share) & (items != 0)] = dataset.oov_row
        learned = targets.any(axis=1)
        if not learned.any():
            return None
        items, targets = items[learned], targets[learned]
        shape = (self.negatives,) if self.negative_mode == "shared" else (*items.shape, self.negatives)
        times = None if dataset.times is None else np.take(dataset.times, index[learned])
        return Batch(items, targets, rng.integers(1, len(dataset.item_ids) + 1, shape), times)

    def _windows(self, rng: np.random.Generator) -> Rows:
        dataset, L, T = self.dataset, self.segment_length, self.segments * self.segment_length
        user = np.flatnonzero(dataset.trained >= 2)
        if self.placed == "newest":
            first = np.maximum(dataset.trained[user] - T - 1, 0)
        else:
            user = np.repeat(user, np.maximum(1, dataset.trained[user] // T))
            length = dataset.trained[user]
            latest = np.where(length > T + 1, length - T - 1, np.clip(length - L - 1, 0, L - 1))
            first = rng.integers(0, latest + 1)
        return np.stack([user, first, np.minimum(T, dataset.trained[user] - first - 1)], axis=1)

    def _batches(self, inputs: Rows, rng: np.random.Generator) -> list[NDArray[np.intp]]:
        """Indices of windows, in groups: the number of windows times the most segments of one is within the budget."""
        budget = self.batch * self.segments
        segments = -(-inputs // self.segment_length)
        order = rng.permutation(len(inputs))
        order = order[np.argsort(segments[order], kind="stable")]
        batches = []
        at = 0
        while at < len(order):
            size = max(1, budget // int(segments[order[at]]))
            while size > 1 and size * int(segments[order[min(at + size, len(order)) - 1]]) > budget:
                size = max(1, budget // int(segments[order[min(at + size, len(order)) - 1]]))
            batches.append(order[at : at + size])
            at += size
        return [batches[i] for i in rng.permutation(len(batches))]


def share(batch: Batch, rank: int, processes: int) -> tuple[Batch, float]:
    """Every n-th window of a batch, for one of n processes, and its weight: its share of the targets times n.

    A process without a window of its own gets one with weight 0.
    """
    if processes == 1:
        return batch, 1.0
    mine = slice(rank, None, processes) if rank < len(batch) else slice(0, 1)
    negatives = batch.negatives if batch.negatives.ndim == 1 else batch.negatives[mine].copy()
    # Copies: networks reshape a batch with `view`, which every n-th window of an array does not allow.
    part = Batch(
        batch.items[mine].copy(),
        batch.targets[mine].copy(),
        negatives,
        None if batch.times is None else batch.times[mine].copy(),
    )
    if rank >= len(batch):
        return part, 0.0
    return part, processes * float((part.targets != 0).sum() / (batch.targets != 0).sum())
