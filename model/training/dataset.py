"""A log as the trainer sees it: a catalogue, everyone's history as item rows, and a line after which nothing is learned
from.

Users and items have to fit in memory, interactions do not: polars streams the log into a form that can be read in
pieces, and all that follows is done piece by piece on disk. With a `folder` the histories stay on disk too,
memory-mapped.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from model.errors import TrainingImpossible
from model.training import attributes
from model.version.attributes import Attributes

Rows = NDArray[np.int64]
Split = Literal["time", "last-out"]

PIECE = 1 << 20
"""Interactions held in memory at a time, some tens of MB; a user with more is one piece."""
ROWS, TIMES = "rows.npy", "times.npy"
BINS = 1 << 16
"""Of the histogram of times in which the line is looked for: three passes find a millisecond in ten years."""


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
        for at in range(0, len(self.rows), PIECE):
            digest.update(self.rows[at : at + PIECE].astype(np.int32).tobytes())
            if self.times is not None:
                digest.update(self.times[at : at + PIECE].tobytes())
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
        encoded, users, things = _encode(log, Path(scratch))
        n_seen = round(encoded.length * until_share)
        n_trained = n_seen - round(n_seen * validation_share) if split == "time" else n_seen
        if n_trained < 2:
            raise TrainingImpossible(f"the log has {n_trained} interactions to learn from")
        if users < 2:
            raise TrainingImpossible("the log has one user; what users have in common is what there is to learn")
        grouped = _by_user(encoded, Path(scratch), users, n_seen, n_trained)
        sorted_ = _in_time_order(grouped, split, len(things), with_times, folder)
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
    for at in range(0, len(sorted_.rows), PIECE):
        sorted_.rows[at : at + PIECE] = row_of[sorted_.rows[at : at + PIECE]]
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


def _empty(path: Path | None, dtype: type, n: int) -> NDArray[Any]:
    """An array in a file, or in memory without one. A file cannot map nothing."""
    if path is None or n == 0:
        return np.empty(n, dtype)
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(n,))


@dataclass(frozen=True, slots=True)
class _Encoded:
    """The log in its own order: codes of users and of things, in the order of their ids, and times.

    A thing is an item, or an item with an attribute where the log has them: they are told apart until the training part
    is known.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    timestamps: Rows

    @property
    def length(self) -> int:
        return len(self.timestamps)

    def pieces(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32], Rows]]:
        for at in range(0, self.length, PIECE):
            piece = slice(at, at + PIECE)
            yield self.users[piece], self.items[piece], self.timestamps[piece]

    def times(self) -> Iterator[Rows]:
        for at in range(0, self.length, PIECE):
            yield self.timestamps[at : at + PIECE]


def _encode(log: pl.LazyFrame, scratch: Path) -> tuple[_Encoded, int, pl.DataFrame]:
    """The encoded log, how many users it has, and its things by code: `item_id`, and `attribute` where the log has it.

    A copy of the log that can be read in pieces comes first: polars' own group_by and join take memory in proportion to
    the interactions, though they stream.
    """
    copy = scratch / "log.parquet"
    thing = ["item_id", "attribute"] if "attribute" in log.collect_schema() else ["item_id"]
    log.select("user_id", *thing, "timestamp").sink_parquet(
        copy, compression="lz4", row_group_size=PIECE // 4 or 1, engine="streaming"
    )
    length = int(pl.scan_parquet(copy).select(pl.len()).collect(engine="streaming").item())
    users, things = (_distinct(copy, columns, length) for columns in (["user_id"], thing))
    encoded = _Encoded(
        _empty(scratch / "users.npy", np.int32, length),
        _empty(scratch / "items.npy", np.int32, length),
        _empty(scratch / "timestamps.npy", np.int64, length),
    )
    for at in range(0, length, PIECE):
        frame = pl.scan_parquet(copy).slice(at, PIECE).collect(engine="streaming")
        encoded.users[at : at + PIECE] = _codes(frame, users)
        encoded.items[at : at + PIECE] = _codes(frame, things)
        encoded.timestamps[at : at + PIECE] = frame["timestamp"].to_numpy()
    copy.unlink()
    return encoded, len(users), things


def _codes(frame: pl.DataFrame, ids: pl.DataFrame) -> NDArray[Any]:
    """Where each row of a frame is among the ids, by the columns that these have."""
    codes = ids.with_row_index("code")
    return (
        frame.select(ids.columns)
        .join(codes, on=ids.columns, how="left", nulls_equal=True, maintain_order="left")["code"]
        .to_numpy()
    )


def _distinct(copy: Path, columns: list[str], length: int) -> pl.DataFrame:
    """The different rows of some columns, sorted. Merged whenever as many have come together as there are, so that it
    takes a few passes over them only."""
    merged = pl.scan_parquet(copy).select(columns).head(0).collect(engine="streaming")
    new: list[pl.DataFrame] = []
    for at in range(0, length, PIECE):
        new.append(pl.scan_parquet(copy).select(columns).slice(at, PIECE).collect(engine="streaming").unique())
        if sum(len(each) for each in new) > len(merged) + PIECE:
            merged, new = pl.concat([merged, *new]).unique(), []
    return pl.concat([merged, *new]).unique().sort(columns)


class _Prefix:
    """The first `count` interactions in time order, told piece by piece while the log goes by once in its own order."""

    def __init__(self, encoded: _Encoded, count: int) -> None:
        self._time, self._ties = _time_of(encoded, count)
        self._met = 0

    def takes(self, times: Rows) -> NDArray[np.bool_]:
        tied = times == self._time
        nth = self._met + np.cumsum(tied)
        self._met += int(tied.sum())
        taken: NDArray[np.bool_] = (times < self._time) | (tied & (nth <= self._ties))
        return taken


def _time_of(encoded: _Encoded, count: int) -> tuple[int, int]:
    """The time of interaction number `count` (from 1) in time order, and which of that very time it is (from 1)."""
    bounds = [(int(times.min()), int(times.max())) for times in encoded.times()]
    low, high = min(least for least, _ in bounds), max(most for _, most in bounds)
    before = 0  # interactions earlier than `low`
    while low < high:
        width = -(-(high - low + 1) // BINS)
        histogram = np.zeros(BINS, np.int64)
        for times in encoded.times():
            histogram += np.bincount((times[(times >= low) & (times <= high)] - low) // width, minlength=BINS)
        reached = before + np.cumsum(histogram)
        found = int(np.searchsorted(reached, count))
        before = int(reached[found - 1]) if found else before
        low, high = low + found * width, min(high, low + (found + 1) * width - 1)
    return low, count - before


@dataclass(frozen=True, slots=True)
class _Grouped:
    """Interactions by user, each user's in the order of the log."""

    start: Rows  # (U + 1,)
    items: NDArray[np.int32]
    times: Rows
    training: NDArray[np.bool_]


def _by_user(encoded: _Encoded, scratch: Path, users: int, n_seen: int, n_trained: int) -> _Grouped:
    seen = _Prefix(encoded, n_seen)
    counts = np.zeros(users, np.int64)
    for user, _, times in encoded.pieces():
        counts += np.bincount(user[seen.takes(times)], minlength=users)
    start = np.concatenate([[0], np.cumsum(counts)])
    grouped = _Grouped(
        start,
        _empty(scratch / "grouped-items.npy", np.int32, n_seen),
        _empty(scratch / "grouped-times.npy", np.int64, n_seen),
        _empty(scratch / "grouped-training.npy", np.bool_, n_seen),
    )
    seen, training = _Prefix(encoded, n_seen), _Prefix(encoded, n_trained)
    free = start[:-1].copy()
    for user, item, times in encoded.pieces():
        taken, trained = seen.takes(times), training.takes(times)
        order = np.argsort(user[taken], kind="stable")
        owner = user[taken][order]
        of, first, count = np.unique(owner, return_index=True, return_counts=True)
        place = free[owner] + np.arange(len(owner)) - np.repeat(first, count)
        free[of] += count
        grouped.items[place], grouped.times[place] = item[taken][order], times[taken][order]
        grouped.training[place] = trained[taken][order]
    return grouped


@dataclass(frozen=True, slots=True)
class _Sorted:
    """Histories in time order, as item codes, and their times if asked for; `counts` by code, of the training part."""

    rows: NDArray[np.int32]
    times: Rows | None
    start: Rows
    trained: Rows
    counts: Rows
    from_ms: int
    until_ms: int


def _in_time_order(grouped: _Grouped, split: Split, n_items: int, with_times: bool, folder: Path | None) -> _Sorted:
    users = len(grouped.start) - 1
    counts = np.diff(grouped.start)
    kept = counts if split == "time" else np.maximum(counts - 1, 0)
    start = np.concatenate([[0], np.cumsum(kept)])
    rows = _empty(None if folder is None else folder / ROWS, np.int32, int(start[-1]))
    when = _empty(None if folder is None else folder / TIMES, np.int64, int(start[-1])) if with_times else None
    trained = np.zeros(users, np.int64) if split == "time" else np.maximum(counts - 2, 0)
    item_counts = np.zeros(n_items, np.int64)
    spans: list[tuple[int, int]] = []
    first = 0
    while first < users:
        last = max(first + 1, int(np.searchsorted(grouped.start, grouped.start[first] + PIECE, side="right")) - 1)
        part = slice(int(grouped.start[first]), int(grouped.start[last]))
        user = np.repeat(np.arange(first, last), counts[first:last])
        order = np.lexsort((grouped.times[part], user))
        items, times = grouped.items[part][order], grouped.times[part][order]
        if split == "time":
            # The line goes by time and then by the log's order, as this sort does: a user's training part comes first.
            trained[first:last] = np.bincount(user[grouped.training[part]] - first, minlength=last - first)
        nth = np.arange(part.start, part.stop) - grouped.start[user]
        rows[start[first] : start[last]] = items[nth < kept[user]]
        if when is not None:
            when[start[first] : start[last]] = times[nth < kept[user]]
        learned = nth < trained[user]
        item_counts += np.bincount(items[learned], minlength=n_items)
        if learned.any():
            spans.append((int(times[learned].min()), int(times[learned].max())))
        first = last
    from_ms, until_ms = (min(least for least, _ in spans), max(most for _, most in spans)) if spans else (0, 0)
    return _Sorted(rows, when, start, trained, item_counts, from_ms, until_ms)


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
