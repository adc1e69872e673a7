"""The training log: what the interactions topic has brought so far, as Parquet files of each partition.

    LOG/PARTITION/FIRST.parquet   user_id, item_id, timestamp, offset; FIRST is the first offset of the file
    LOG/.topic.json               which topic it is
    LOG/.lock, LOG/.training/     of the trainer

Readers of logs pass over hidden names.

The files are the truth: how far a partition was read is written inside its newest file (`next`), with how many users
were forgotten. A file is replaced in one step, by renaming. So a batch is in the log as a whole or not at all, and
after a crash the trainer reads on at `next`, whatever the group has committed.

A batch begins with the users who were forgotten: their rows leave the older files before the batch itself is written.
After a crash between the two, the same null values come again, and find nothing left to remove.
"""

import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from model.version.file_lock import lock
from stream.durable_files import WRITING, replace_durably, sync, write_durably
from stream.errors import TrainingLogUnfit
from stream.rows import Batch, item_column
from stream.trainer.points import At, Point, passing

FULL: Final = 250_000
"""Rows of a file. Each batch rewrites the newest file, so files must not grow for ever."""
TRAINING: Final = ".training"
_LOCK: Final = ".lock"
_TOPIC: Final = ".topic.json"
_KEY: Final = "rec2pm"
_ENDING: Final = ".parquet"


class Topic(msgspec.Struct, frozen=True):
    """The topic that a log is of."""

    app: str
    topic: str
    topic_id: str
    """Kafka's; empty if the broker has no topic ids."""


class _Noted(Topic, frozen=True):
    """The topic, and the name of the trainer that the log is of: the same after a restart, on any machine."""

    trainer: str


class _Facts(msgspec.Struct, frozen=True):
    """What a file says beside its rows."""

    next: int
    """The offset after the last record that the file stands for."""
    nulls: int
    """How many null values were among these records."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How many null values were obeyed, and up to which offset of each partition."""

    users: int
    until: Mapping[int, int]


@dataclass(slots=True)
class _File:
    path: Path
    facts: _Facts
    rows: int

    @property
    def first(self) -> int:
        return int(self.path.name.removesuffix(_ENDING))


class TrainingLog:
    """A folder of training data that this process alone writes to, until `close`."""

    def __init__(self, folder: Path, at: At = passing) -> None:
        """Open the folder, or make it. What a crash left half-written is removed.

        Raises:
            TrainingLogUnfit: another process has it, or files are there that are not of a trainer, or are damaged.
        """
        self.folder: Final = folder
        self._at = at
        try:
            # What users did is for the owner alone, as in a worker's state folder.
            folder.mkdir(0o700, parents=True, exist_ok=True)
            descriptor = lock(folder / _LOCK)
        except OSError as error:
            raise TrainingLogUnfit(f"{folder} cannot be used as a training log: {error}") from error
        if descriptor is None:
            raise TrainingLogUnfit(f"{folder}: another trainer on this machine has this log. Only one can write to it")
        self._descriptor = descriptor
        try:
            self._files: Final = _found(folder)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._descriptor)

    def belongs_to(self, topic: Topic) -> str:
        """Note which topic the log is of, the first time. Returns the name of the log's trainer.

        Raises:
            TrainingLogUnfit: it is of another topic.
        """
        path = self.folder / _TOPIC
        if not path.is_file():
            if self._files:
                raise TrainingLogUnfit(
                    f"{path} is missing: it is not known which topic the files of {self.folder} are of"
                )
            noted = _Noted(topic.app, topic.topic, topic.topic_id, secrets.token_hex(4))
            write_durably(path, msgspec.json.encode(noted))
            return noted.trainer
        try:
            found = msgspec.json.decode(path.read_bytes(), type=_Noted)
        except msgspec.DecodeError as error:
            raise TrainingLogUnfit(f"{path}: not a description of a topic: {error}") from error
        if (found.app, found.topic) != (topic.app, topic.topic):
            raise TrainingLogUnfit(
                f"{self.folder} is the training log of {found.topic} ({found.app}), not of {topic.topic} ({topic.app}): name "
                "another folder with --log"
            )
        if found.topic_id and topic.topic_id and found.topic_id != topic.topic_id:
            raise TrainingLogUnfit(
                f"{self.folder} is the training log of an earlier {found.topic} (id {found.topic_id}; now {topic.topic_id}): the "
                "topic was deleted and created again, and its offsets mean other records. Name another folder with --log"
            )
        return found.trainer

    def next(self, partition: int) -> int | None:
        """The offset to read next; None if nothing was read of the partition yet."""
        files = self._files.get(partition)
        return files[-1].facts.next if files else None

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self._all())

    def rows_since(self, until: Mapping[int, int]) -> int:
        """How many rows have an offset from `until` on, for each partition."""
        count = 0
        for partition, files in self._files.items():
            start = until.get(partition, 0)
            for file in files:
                if file.first >= start:
                    count += file.rows
                elif file.facts.next > start:
                    rows = pl.scan_parquet(file.path).filter(pl.col("offset") >= start).select(pl.len())
                    count += int(rows.collect().item())
        return count

    @property
    def forgotten(self) -> Forgotten:
        return Forgotten(
            sum(file.facts.nulls for file in self._all()),
            {partition: files[-1].facts.next for partition, files in sorted(self._files.items()) if files},
        )

    def append(self, partition: int, batch: Batch) -> None:
        """Add a batch to a partition: first its forgotten users leave the log, then its rows come in.

        Raises:
            OSError: it could not be written. Nothing of the batch's rows is in the log.
        """
        files = self._files.setdefault(partition, [])
        if batch.forgotten:
            for file in files:
                self._remove(file, batch.forgotten)
        rows = _frame(batch)
        if batch.forgotten:
            of = pl.Series("user_id", list(batch.forgotten), pl.String)
            void = pl.DataFrame({"user_id": of, "void": pl.Series(list(batch.forgotten.values()), dtype=pl.Int64)})
            rows = (
                rows.join(void, on="user_id", how="left", maintain_order="left")
                .filter((pl.col("offset") > pl.col("void")).fill_null(value=True))
                .drop("void")
            )
        newest = files[-1] if files else None
        if newest is not None and newest.rows < FULL:
            rows = _together(pl.read_parquet(newest.path), rows)
            self._replace(newest, rows, _Facts(batch.next, newest.facts.nulls + batch.nulls))
        else:
            folder = self.folder / str(partition)
            folder.mkdir(exist_ok=True)
            sync(self.folder)
            made = _File(folder / f"{batch.first:020}{_ENDING}", _Facts(batch.next, batch.nulls), 0)
            self._replace(made, rows, made.facts)
            files.append(made)
        self._at(Point.WRITTEN)

    def link(self, folder: Path) -> None:
        """Set the present files aside in a folder, which must not exist: later batches do not change what is there."""
        folder.mkdir(parents=True)
        for partition, files in self._files.items():
            (folder / str(partition)).mkdir()
            for file in files:
                os.link(file.path, folder / str(partition) / file.path.name)

    def _remove(self, file: _File, users: Mapping[str, int]) -> None:
        """Take the rows of users out of a file that has only older rows."""
        rows = pl.read_parquet(file.path)
        left = rows.filter(~pl.col("user_id").is_in(list(users)))
        if len(left) < len(rows):
            self._replace(file, left, file.facts)
            self._at(Point.REMOVED_PARTLY)

    def _replace(self, file: _File, rows: pl.DataFrame, facts: _Facts) -> None:
        metadata: Any = {_KEY: msgspec.json.encode(facts).decode()}
        replace_durably(
            file.path,
            lambda stream: rows.write_parquet(stream, metadata=metadata),
            before_renaming=lambda: self._at(Point.BESIDE),
        )
        file.facts, file.rows = facts, len(rows)

    def _all(self) -> Iterator[_File]:
        for files in self._files.values():
            yield from files


def _found(folder: Path) -> dict[int, list[_File]]:
    """The files of each partition, oldest first."""
    found: dict[int, list[_File]] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if not (entry.is_dir() and entry.name.isdecimal()):
            raise TrainingLogUnfit(
                f"{entry} is not of a trainer: a training log has only what its trainer wrote. Name another folder with --log, "
                "or take the file away; `rec2pm train` learns from other logs"
            )
        paths = sorted(entry.iterdir())
        for path in paths:
            if path.name.startswith(".") and path.name.endswith(WRITING):
                path.unlink()
        found[int(entry.name)] = [_opened(path) for path in paths if not path.name.startswith(".")]
    return found


def _opened(path: Path) -> _File:
    if not (path.suffix == _ENDING and path.stem.isdecimal()):
        raise TrainingLogUnfit(f"{path} is not of a trainer: a training log has only what its trainer wrote")
    try:
        facts = msgspec.json.decode(pl.read_parquet_metadata(path)[_KEY], type=_Facts)
        rows = int(pl.scan_parquet(path).select(pl.len()).collect().item())
    except (KeyError, msgspec.DecodeError, pl.exceptions.PolarsError, OSError) as error:
        raise TrainingLogUnfit(
            f"{path} is damaged, or no trainer wrote it ({error}). Remove the folder {path.parent.name} of this partition: the "
            "trainer then reads the partition again, as far as the topic still has it"
        ) from error
    return _File(path, facts, rows)


def _frame(batch: Batch) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": pl.Series(batch.users, dtype=pl.String),
            "item_id": item_column(batch.items),
            "timestamp": pl.Series(batch.times, dtype=pl.Int64).cast(pl.Datetime("ms", "UTC")),
            "offset": pl.Series(batch.offsets, dtype=pl.Int64),
        }
    )


def _together(before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """Two frames, one after the other. Items are text if some of them are: an integer and its text are the same id."""
    frames = [frame for frame in (before, after) if len(frame)]
    if len({frame.schema["item_id"] for frame in frames}) > 1:
        frames = [frame.with_columns(pl.col("item_id").cast(pl.String)) for frame in frames]
    return pl.concat(frames) if frames else before
