"""A log as training sees it: a catalogue, the history of every user as item rows, and a split into parts.

Users and items must fit in memory; interactions need not. polars streams the log into a file that can be read in
pieces, and everything else works on disk, piece by piece. With a `folder`, the histories stay on disk too,
memory-mapped.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from model.errors import TrainingImpossible
from model.training import attributes, encoded_log
from model.training.encoded_log import ROWS, TIMES, Rows, Split
from model.version.attributes import Attributes

USUAL_VALIDATION_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Dataset:
    """All histories, one after another.

    Item rows are 1..V by how often the training part has an item, most popular first, and V + 1 for any other item. A
    dataset that was loaded with `keep_rows` begins with the known items instead, in their order.
    `rows[start[u] : start[u + 1]]` is the history of user u, oldest first. Its first `trained[u]` interactions are the
    training part, the others are for validation. Users are in the order of their ids. What a split keeps for a test is
    left out.
    """

    item_ids: tuple[int | str, ...]
    popularity: NDArray[np.float32]  # (V + 1,) share of the training interactions; index 0 is padding
    rows: NDArray[Any]  # integers; memory-mapped if the dataset has a folder
    start: Rows  # (U + 1,)
    trained: Rows  # (U,)
    from_ms: int
    until_ms: int
    times: NDArray[Any] | None = None  # int64 epoch ms of `rows`, if loaded with times
    attributes: Attributes | None = None  # if the log has a column of them

    @property
    def oov_row(self) -> int:
        return len(self.item_ids) + 1

    def history(self, user: int) -> NDArray[Any]:
        return self.rows[self.start[user] : self.start[user + 1]]

    def history_ms(self, user: int) -> NDArray[Any]:
        """The times of a history, for a dataset with times."""
        assert self.times is not None, "the dataset was loaded without times"
        return self.times[self.start[user] : self.start[user + 1]]

    def attribute_of(self) -> Tensor | None:
        """The number of the attribute of each item row, (V + 2,) int64; None without attributes."""
        return None if self.attributes is None else self.attributes.by_row()

    def digest(self) -> str:
        """One hash over everything in the dataset that training depends on."""
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
    validation_share: float = USUAL_VALIDATION_SHARE,
    known: Sequence[int | str] = (),
    keep_rows: bool = False,
    with_times: bool = False,
    known_attributes: Attributes | None = None,
    folder: Path | None = None,
) -> Dataset:
    """A log, encoded and split.

    Args:
        log: `user_id`, `item_id`, `timestamp` (ms), and `attribute` if items have any. The attribute of an item is its
            most frequent value in the training part, of equally frequent ones the smallest. Interactions of the same
            millisecond keep their order in the log.
        min_item_count: how often the training part must have an item for the item to get a row.
        split: "time": the first `until_share` of the log in time order; its last `validation_share` is the validation
            part. "last-out" (docs/model-spec.md, "Evaluation protocol"): the last interaction of every user is for a
            test and left out, the one before it is the validation part. `until_share` counts as above,
            `validation_share` does not.
        known: items that get a row even if the log does not have them. `42` and `"42"` are the same item.
        keep_rows: give the known items the rows 1, 2, … in their order, and other items the rows after them.
        with_times: also keep the times of interactions, which takes three times the space.
        known_attributes: the attributes of `known`, for `attributes.of_catalogue`; read if the log has attributes.
        folder: where the histories stay, for `opened`. None keeps them in memory.

    Raises:
        TrainingImpossible: no interactions, one user or no items are left to learn from.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".encoded-") as scratch:
        encoded, users, variants = encoded_log.encode(log, Path(scratch))
        n_seen = round(encoded.length * until_share)
        n_trained = n_seen - round(n_seen * validation_share) if split == "time" else n_seen
        if n_trained < 2:
            raise TrainingImpossible(
                f"{n_trained} of the {encoded.length} interactions of the log {'is' if n_trained == 1 else 'are'} left to "
                "learn from, and training needs several",
                remedies=_longer(until_share, validation_share, split),
            )
        if users < 2:
            raise TrainingImpossible(
                "the log has one user. Training learns what users have in common, so it needs several"
            )
        grouped = encoded_log.by_user(encoded, Path(scratch), users, n_seen, n_trained)
        sorted_ = encoded_log.in_time_order(grouped, split, len(variants), with_times, folder)
    if sorted_.trained.sum() < 2 or (sorted_.trained > 0).sum() < 2:
        raise TrainingImpossible(
            f"{sorted_.trained.sum()} interactions of {(sorted_.trained > 0).sum()} users are left to learn from, without what is held out. "
            "Training learns what users have in common, so it needs several",
            remedies=_longer(until_share, validation_share, split),
        )
    items, item_of = _items(variants["item_id"])
    counts = np.bincount(item_of, weights=sorted_.counts, minlength=len(items)).astype(np.int64)
    codes, rows, item_ids = _catalogue(items, counts, min_item_count, known, keep_rows=keep_rows)
    row_of = np.full(len(items), len(item_ids) + 1, np.int32)
    row_of[codes] = rows
    row_of = row_of[item_of]
    for at in range(0, len(sorted_.rows), encoded_log.PIECE):
        sorted_.rows[at : at + encoded_log.PIECE] = row_of[sorted_.rows[at : at + encoded_log.PIECE]]
    popularity = np.zeros(len(item_ids) + 1, np.float32)
    popularity[rows] = counts[codes] / sorted_.trained.sum()
    found = None
    if "attribute" in variants.columns:
        value_of = attributes.most_frequent(variants.with_columns(count=sorted_.counts))
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
    """The dataset that `load` left in a folder. The histories stay on disk."""
    stored = msgspec.json.decode((folder / "dataset.json").read_bytes(), type=_Stored)
    arrays = {name: np.load(folder / f"{name}.npy") for name in ("popularity", "start", "trained")}
    times = _mapped(folder / TIMES) if (folder / TIMES).is_file() else None
    return Dataset(
        tuple(stored.item_ids),
        rows=_mapped(folder / ROWS),
        from_ms=stored.from_ms,
        until_ms=stored.until_ms,
        times=times,
        attributes=stored.attributes,
        **arrays,
    )


class _Stored(msgspec.Struct):
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
    stored = _Stored(list(dataset.item_ids), dataset.from_ms, dataset.until_ms, dataset.attributes)
    (folder / "dataset.json").write_bytes(msgspec.json.encode(stored))


def _mapped(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r")
    return array


def _items(of_variants: pl.Series) -> tuple[pl.Series, NDArray[np.intp]]:
    """The distinct items of variants, in order, and the index of the item of each variant."""
    items = of_variants.unique(maintain_order=True)
    return items, np.cumsum((of_variants != of_variants.shift(1)).fill_null(value=False).to_numpy(), dtype=np.intp)


def _catalogue(
    items: pl.Series, counts: Rows, min_item_count: int, known: Sequence[int | str], *, keep_rows: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp], tuple[int | str, ...]]:
    """The codes of the log's items that get a row, the row of each of them, and the ids of all rows.

    With `keep_rows` the known items come first, in their order. Otherwise the items of the log come first, the most
    frequent one before all others, and the known items that the log does not have come last.
    """
    texts = items.cast(pl.String)
    kept = counts >= min_item_count
    if known:
        kept |= texts.is_in({str(item) for item in known}).to_numpy()
    chosen = np.flatnonzero(kept)
    codes = chosen[np.argsort(-counts[chosen], kind="stable")]
    found = items.gather(codes).to_list()
    there = {str(item): item for item in found} if known else {}
    if keep_rows:
        ours = {str(item) for item in known}
        item_ids = (*(there.get(str(item), item) for item in known), *(item for item in found if str(item) not in ours))
    else:
        item_ids = (*found, *(item for item in known if str(item) not in there))
    row_of = {str(item): row for row, item in enumerate(item_ids, start=1)}
    rows = np.array([row_of[str(item)] for item in found], np.intp)
    if len(item_ids) < 2:
        raise TrainingImpossible(
            f"the training part has {int((counts > 0).sum())} items, {len(item_ids)} of them with at least "
            f"{min_item_count} interactions (min_item_count), and training needs 2",
            remedies=_more_items(counts),
        )
    return codes, rows, item_ids


def _more_items(counts: Rows) -> tuple[dict[str, object], ...]:
    """The largest min_item_count that keeps half of the interactions and two items, if there is one."""
    falling = -np.sort(-counts)
    covering = int(np.searchsorted(np.cumsum(falling), falling.sum() / 2)) if len(falling) else 0
    least = int(falling[max(covering, 1)]) if len(falling) > 1 else 0
    return ({"min_item_count": least},) if least else ()


def _longer(until_share: float, validation_share: float, split: Split) -> tuple[dict[str, object], ...]:
    """Changes that leave more of a log to learn from."""
    found: list[dict[str, object]] = []
    if split == "last-out":
        found.append({"split": "time"})
    found += [{"validation_share": share} for share in (USUAL_VALIDATION_SHARE, 0.02) if share < validation_share]
    if until_share < 1.0:
        found.append({"until_share": 1.0})
    return tuple(found)
