"""A log as the trainer sees it: a catalogue, everyone's history as item rows, and a line after which nothing is learned
from.

Users and items have to fit in memory, interactions do not: polars streams the log into a form that can be read in
pieces, and all that follows is done piece by piece on disk. With a `folder` the histories stay on disk too,
memory-mapped.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from model.errors import TrainingImpossible
from model.training import attributes, encoded_log
from model.training.encoded_log import ROWS, TIMES, Rows, Split
from model.version.attributes import Attributes


@dataclass(frozen=True, slots=True)
class Dataset:
    """All histories, one after another.

    Item rows: 1..V by how often an item was seen in the training part, most popular first; V + 1 for any other item.
    `rows[start[u] : start[u + 1]]` is user u's history, oldest first; its first `trained[u]` interactions are the
    training part, the others validation. Users are in the order of their ids. What a split keeps for a test is not in
    here at all.
    """

    item_ids: tuple[int | str, ...]
    popularity: NDArray[np.float32]  # (V + 1,): share of the training interactions; index 0 is padding
    rows: NDArray[Any]  # integers; memory-mapped where the dataset has a folder
    start: Rows  # (U + 1,)
    trained: Rows  # (U,)
    from_ms: int
    until_ms: int
    times: NDArray[Any] | None = None  # int64 epoch ms of `rows`, where they were asked for; memory-mapped as they are
    attributes: Attributes | None = None  # where the log has a column of them

    @property
    def oov_row(self) -> int:
        return len(self.item_ids) + 1

    def history(self, user: int) -> NDArray[Any]:
        return self.rows[self.start[user] : self.start[user + 1]]

    def history_ms(self, user: int) -> NDArray[Any]:
        """The times of a history, of a dataset with times."""
        assert self.times is not None, "loaded without times"
        return self.times[self.start[user] : self.start[user + 1]]

    def attribute_of(self) -> Tensor | None:
        """(V + 2,) int64, the number of each item row's attribute; None without attributes."""
        return None if self.attributes is None else self.attributes.by_row()

    def digest(self) -> str:
        """One hash over everything that training depends on."""
        digest = hashlib.sha256(msgspec.json.encode(self.item_ids))
        for array in (self.start, self.trained):
            digest.update(np.ascontiguousarray(array, np.int64).tobytes())
        for at in range(0, len(self.rows), encoded_log.PIECE):
            digest.update(self.rows[at : at + encoded_log.PIECE].astype(np.int32).tobytes())
            if self.times is not None:
                digest.update(self.times[at : at + encoded_log.PIECE].tobytes())
        if self.attributes is not None:
            digest.update(msgspec.json.encode(self.attributes))
        return digest.hexdigest()


def load(
    log: pl.LazyFrame,
    *,
    min_item_count: int,
    split: Split = "time",
    until_share: float = 1.0,
    validation_share: float = 0.1,
    known: Sequence[int | str] = (),
    with_times: bool = False,
    known_attributes: Attributes | None = None,
    folder: Path | None = None,
) -> Dataset:
    """A log, encoded and split.

    Args:
        log: `user_id`, `item_id`, `timestamp` (ms), and `attribute` if items have any: an item's is its most frequent
            value in the training part, ties the smallest. Of interactions of the same millisecond the earlier in the
            log comes first.
        min_item_count: how often the training part has to have an item for it to get a row.
        split: "time": the first `until_share` of the log in time order, of which the last `validation_share` is the
            validation part. "last-out" (docs/model-spec.md, "Evaluation protocol"): everybody's last interaction is for
            a test elsewhere and left out, the one before it is the validation part; `until_share` counts as above,
            `validation_share` does not count.
        known: items that get a row whether the log has them or not. `42` and `"42"` are the same item.
        with_times: keep when interactions happened as well, three times the space.
        known_attributes: those of `known`, as `attributes.of_catalogue` takes them; read where the log has attributes.
        folder: where the histories stay, for `opened`; None keeps them in memory.

    Raises:
        TrainingImpossible: nothing, one user or no item is left to learn from.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".encoded-") as scratch:
        encoded, users, things = encoded_log.encode(log, Path(scratch))
        n_seen = round(encoded.length * until_share)
        n_trained = n_seen - round(n_seen * validation_share) if split == "time" else n_seen
        if n_trained < 2:
            raise TrainingImpossible(f"the log has {n_trained} interactions to learn from")
        if users < 2:
            raise TrainingImpossible("the log has one user; what users have in common is what there is to learn")
        grouped = encoded_log.by_user(encoded, Path(scratch), users, n_seen, n_trained)
        sorted_ = encoded_log.in_time_order(grouped, split, len(things), with_times, folder)
    if sorted_.trained.sum() < 2 or (sorted_.trained > 0).sum() < 2:
        raise TrainingImpossible(
            f"{sorted_.trained.sum()} interactions of {(sorted_.trained > 0).sum()} users are left to learn from, besides what is held out: "
            "one user or none; what users have in common is what there is to learn"
        )
    items, item_of = _items(things["item_id"])
    counts = np.bincount(item_of, weights=sorted_.counts, minlength=len(items)).astype(np.int64)
    codes, item_ids = _catalogue(items, counts, min_item_count, known)
    row_of = np.full(len(items), len(item_ids) + 1, np.int32)
    row_of[codes] = np.arange(1, len(codes) + 1)
    row_of = row_of[item_of]
    for at in range(0, len(sorted_.rows), encoded_log.PIECE):
        sorted_.rows[at : at + encoded_log.PIECE] = row_of[sorted_.rows[at : at + encoded_log.PIECE]]
    popularity = np.zeros(len(item_ids) + 1, np.float32)
    popularity[1 : len(codes) + 1] = counts[codes] / sorted_.trained.sum()
    found = None
    if "attribute" in things.columns:
        value_of = attributes.most_frequent(things.with_columns(count=sorted_.counts))
        found = attributes.of_catalogue(item_ids, value_of, known_attributes, known)
    dataset = Dataset(
        item_ids=item_ids,
        popularity=popularity,
        rows=sorted_.rows,
        start=sorted_.start,
        trained=sorted_.trained,
        from_ms=sorted_.from_ms,
        until_ms=sorted_.until_ms,
        times=sorted_.times,
        attributes=found,
    )
    if folder is not None:
        _save(dataset, folder)
    return dataset


def opened(folder: Path) -> Dataset:
    """What `load` left in a folder; the histories stay on disk."""
    said = msgspec.json.decode((folder / "dataset.json").read_bytes(), type=_Said)
    arrays = {name: np.load(folder / f"{name}.npy") for name in ("popularity", "start", "trained")}
    times = _mapped(folder / TIMES) if (folder / TIMES).is_file() else None
    return Dataset(
        tuple(said.item_ids),
        rows=_mapped(folder / ROWS),
        from_ms=said.from_ms,
        until_ms=said.until_ms,
        times=times,
        attributes=said.attributes,
        **arrays,
    )


class _Said(msgspec.Struct):
    item_ids: list[int | str]
    from_ms: int
    until_ms: int
    attributes: Attributes | None


def _save(dataset: Dataset, folder: Path) -> None:
    for mapped in (dataset.rows, dataset.times):
        if isinstance(mapped, np.memmap):
            mapped.flush()
    for name in ("popularity", "start", "trained"):
        np.save(folder / f"{name}.npy", getattr(dataset, name))
    said = _Said(list(dataset.item_ids), dataset.from_ms, dataset.until_ms, dataset.attributes)
    (folder / "dataset.json").write_bytes(msgspec.json.encode(said))


def _mapped(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r")
    return array


def _items(of_things: pl.Series) -> tuple[pl.Series, NDArray[np.intp]]:
    """The different items of things in the order of their items, and where each thing's is among them."""
    items = of_things.unique(maintain_order=True)
    return items, np.cumsum((of_things != of_things.shift(1)).fill_null(value=False).to_numpy(), dtype=np.intp)


def _catalogue(
    items: pl.Series, counts: Rows, min_item_count: int, known: Sequence[int | str]
) -> tuple[NDArray[np.intp], tuple[int | str, ...]]:
    """The codes of the items that get rows 1, 2, …, and the ids of all rows: these, and then the known items that the
    log has not.
    """
    texts = items.cast(pl.String)
    kept = counts >= min_item_count
    if known:
        kept |= texts.is_in({str(item) for item in known}).to_numpy()
    chosen = np.flatnonzero(kept)
    codes = chosen[np.argsort(-counts[chosen], kind="stable")]
    there = set(texts.gather(codes).to_list()) if known else set()
    item_ids = (*items.gather(codes).to_list(), *(item for item in known if str(item) not in there))
    if len(item_ids) < 2:
        raise TrainingImpossible(
            f"{len(item_ids)} items were seen {min_item_count} times or more; lower min_item_count"
        )
    return codes, item_ids
