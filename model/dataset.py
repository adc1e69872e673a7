"""A log as the trainer sees it: a catalogue, everyone's history as item rows, and a point in time after which nothing is learned from."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.errors import TrainingImpossible
from model.log import in_time_order

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Dataset:
    """All histories, one after another.

    Item rows: 1..V by how often an item was seen in the training part, most popular first; V + 1 for any other item. `rows[start[u] :
    start[u + 1]]` is user u's history, oldest first; its first `trained[u]` interactions are the training part, the others validation.
    """

    item_ids: tuple[int | str, ...]
    popularity: NDArray[np.float32]  # (V + 1,): share of the training interactions; index 0 is padding
    rows: Rows
    start: Rows  # (U + 1,)
    trained: Rows  # (U,)
    from_ms: int
    until_ms: int

    @property
    def oov_row(self) -> int:
        return len(self.item_ids) + 1

    def history(self, user: int) -> Rows:
        return self.rows[self.start[user] : self.start[user + 1]]


@dataclass(frozen=True, slots=True)
class Windows:
    """A batch: (B, n) int64 item rows, right-padded, n a whole number of segments, and the item after each; 0 where none is learned."""

    items: Rows
    targets: Rows


def load(log: pl.LazyFrame, *, until_share: float, validation_share: float, min_item_count: int) -> Dataset:
    """The first `until_share` of a log in time order; the last `validation_share` of that is the validation part.

    Raises:
        TrainingImpossible: nothing, one user or no item is left to learn from.
    """
    frame = in_time_order(log.select("user_id", "item_id", "timestamp")).collect()
    frame = frame.head(round(len(frame) * until_share))
    n_trained = len(frame) - round(len(frame) * validation_share)
    training = frame.head(n_trained)
    if len(training) < 2:
        raise TrainingImpossible(f"the log has {len(training)} interactions to learn from")
    if training["user_id"].n_unique() < 2:
        raise TrainingImpossible("the log has one user; what users have in common is what there is to learn")
    catalogue = (
        training.group_by("item_id")
        .len("count")
        .filter(pl.col("count") >= min_item_count)
        .sort(["count", "item_id"], descending=[True, False])
    )
    if len(catalogue) < 2:
        raise TrainingImpossible(f"{len(catalogue)} items were seen {min_item_count} times or more; lower --min-item-count")
    users = frame.select("user_id").unique(maintain_order=True).with_row_index("user")
    coded = frame.join(users, on="user_id", how="left", maintain_order="left").join(
        catalogue.with_row_index("row", offset=1), on="item_id", how="left", maintain_order="left"
    )
    user = coded["user"].to_numpy().astype(np.int64)
    rows = coded["row"].fill_null(len(catalogue) + 1).to_numpy().astype(np.int64)
    counts = np.bincount(user, minlength=len(users))
    popularity = np.zeros(len(catalogue) + 1, np.float32)
    popularity[1:] = catalogue["count"].to_numpy() / n_trained
    return Dataset(
        item_ids=tuple(catalogue["item_id"].to_list()),
        popularity=popularity,
        rows=rows[np.argsort(user, kind="stable")],
        start=np.concatenate([[0], np.cumsum(counts)]),
        trained=np.bincount(user[:n_trained], minlength=len(users)),
        from_ms=int(training["timestamp"][0]),
        until_ms=int(training["timestamp"][-1]),
    )


def epoch(
    dataset: Dataset, rng: np.random.Generator, *, segment_length: int, segments: int, batch: int, oov_share: float
) -> Iterator[Windows]:
    """Batches in which every user of the training part appears, longer ones more often.

    Windows of about the same number of segments share a batch, and every batch has about `batch · segments` segments, so that little of it
    is padding. A window starts anywhere in a history longer than itself, and within the first segment of a shorter one, so that what a
    position means does not depend on the grid. `oov_share` of the inputs are replaced by the row for unknown items.
    """
    windows = _windows(dataset, rng, segment_length, segments)
    for index in _batches(windows[:, 2], rng, segment_length, batch * segments):
        yield _cut(dataset, windows[index], rng, segment_length, oov_share)


def _windows(dataset: Dataset, rng: np.random.Generator, L: int, K: int) -> Rows:
    """(W, 3): user, first interaction and number of inputs of each window."""
    user = np.flatnonzero(dataset.trained >= 2)
    user = np.repeat(user, np.maximum(1, dataset.trained[user] // (K * L)))
    length = dataset.trained[user]
    latest = np.where(length > K * L + 1, length - K * L - 1, np.clip(length - L - 1, 0, L - 1))
    first = rng.integers(0, latest + 1)
    return np.stack([user, first, np.minimum(K * L, length - first - 1)], axis=1)


def _batches(inputs: Rows, rng: np.random.Generator, L: int, budget: int) -> list[NDArray[np.intp]]:
    """Indices of windows, grouped; a group's number of windows times its most segments is within the budget."""
    segments = -(-inputs // L)
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


def _cut(dataset: Dataset, windows: Rows, rng: np.random.Generator, L: int, oov_share: float) -> Windows:
    width = -(-int(windows[:, 2].max()) // L) * L
    items, targets = np.zeros((len(windows), width), np.int64), np.zeros((len(windows), width), np.int64)
    for i, (user, first, inputs) in enumerate(windows):
        history = dataset.history(user)
        items[i, :inputs] = history[first : first + inputs]
        targets[i, :inputs] = history[first + 1 : first + inputs + 1]
    targets[targets == dataset.oov_row] = 0
    items[(rng.random(items.shape) < oov_share) & (items != 0)] = dataset.oov_row
    return Windows(items, targets)
