"""The folder of an export while it is being written, and when it is whole.

    .OUT.unfinished/       while it is being written; the last step renames it to OUT
        .job.json          what is exported: fixed when it begins, so that a later start goes on with the same
        .lock              held by the process that writes
        PARTITION-FIRST.parquet

A file is renamed to its name when it is whole. It says how far its partition was read (`Facts`). So after a crash the
export reads on behind the newest file. Users who were forgotten leave the files when all are written, the oldest file
first: the files that are left know their own forgotten users.
"""

import os
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from model.version.file_lock import lock
from stream.durable_files import WRITING, replace_durably, sync, write_durably
from stream.errors import ExportUnfit
from stream.rows import Batch, Counts, item_column

ORIGIN: Final = "_kafka.json"
"""Beside the files of an export. Readers of logs pass over names that begin with `_`."""
_JOB: Final = ".job.json"
_LOCK: Final = ".lock"
_KEY: Final = "rec2pm"
_ENDING: Final = ".parquet"


class Job(msgspec.Struct, frozen=True):
    """What is exported."""

    topic: str
    topic_id: str
    """Kafka's; empty if the broker has no topic ids."""
    asked: str
    """The range as it was asked for."""
    reading: str
    """The settings that say how records are read."""
    ranges: dict[str, tuple[int, int]]
    """Partition → the first offset, and the one after the last."""


class Origin(msgspec.Struct, frozen=True):
    """Where a folder of interactions came from."""

    topic: str
    topic_id: str
    ranges: dict[str, tuple[int, int]]
    """Partition → the first offset, and the one after the last."""
    rows: int
    refused: int
    reasons: dict[str, int]
    """Why records were refused → how many."""
    passed_over: int
    without_time: int
    forgotten: int
    """Null values."""

    def until(self) -> dict[str, int]:
        """Partition → the offset after the last."""
        return {number: until for number, (_, until) in self.ranges.items()}


class Facts(msgspec.Struct, frozen=True):
    """What a file says beside its rows."""

    next: int
    """The offset after the last record that the file stands for."""
    refused: int
    reasons: dict[str, int]
    passed_over: int
    without_time: int
    nulls: int
    forgotten: dict[str, int]
    """User → the offset of their newest null value; empty once the rows before it are gone."""


class Pieces:
    """The unfinished folder of one export, which this process alone writes to until `close`."""

    def __init__(self, out: Path) -> None:
        """Raises:
        ExportUnfit: the folder is there already, another process writes it, or it cannot be made.
        """
        self._out = out.absolute()
        self._folder = self._out.with_name(f".{self._out.name}.unfinished")
        if self._out.exists() and (not self._out.is_dir() or any(self._out.iterdir())):
            whole = "an export is whole there" if (self._out / ORIGIN).is_file() else "it is not empty"
            raise ExportUnfit(f"{out} is there already, and {whole}: name another folder with --out, or remove it")
        try:
            # What users did is for the owner alone, as in a worker's state folder.
            self._folder.mkdir(0o700, parents=True, exist_ok=True)
            descriptor = lock(self._folder / _LOCK)
        except OSError as error:
            raise ExportUnfit(f"{out} cannot be written: {error}") from error
        if descriptor is None:
            raise ExportUnfit(f"{out} is being written by another process")
        self._descriptor = descriptor

    def close(self) -> None:
        os.close(self._descriptor)

    def job(self) -> Job | None:
        """What is being exported; None if nothing was noted."""
        path = self._folder / _JOB
        try:
            return msgspec.json.decode(path.read_bytes(), type=Job) if path.is_file() else None
        except msgspec.DecodeError as error:
            raise ExportUnfit(f"{path} is damaged ({error}): remove its folder to begin again") from error

    def begin(self, job: Job) -> Job:
        """Note what is exported, or return what was noted before.

        Raises:
            ExportUnfit: something else was being exported.
        """
        noted = self.job()
        if noted is None:
            write_durably(self._folder / _JOB, msgspec.json.encode(job))
            return job
        different = [
            f"{what} was {before or 'unknown'} and is {now or 'unknown'}"
            for what, before, now in (
                ("the topic", noted.topic, job.topic),
                ("its id", noted.topic_id, job.topic_id),
                ("the range", noted.asked, job.asked),
                ("the reading of records", noted.reading, job.reading),
            )
            if before != now
        ]
        if different:
            raise ExportUnfit(
                f"{self._folder} holds an unfinished export, but {'; '.join(different)}: finish that one as it was begun, or "
                "remove the folder"
            )
        return noted

    def next(self, partition: int) -> int | None:
        """Where to read on in a partition; None if nothing of it is written."""
        paths = self._of(partition)
        return self._facts(paths[-1]).next if paths else None

    def append(self, partition: int, batch: Batch, counts: Counts, reasons: dict[str, int]) -> None:
        """Write a batch as the next file of a partition.

        Raises:
            OSError: it could not be written.
        """
        facts = Facts(
            batch.next,
            counts.refused,
            reasons,
            counts.passed_over,
            counts.without_time,
            batch.nulls,
            batch.forgotten,
        )
        frame = pl.DataFrame(
            {
                "user_id": pl.Series(batch.users, dtype=pl.String),
                "item_id": item_column(batch.items),
                "timestamp": pl.Series(batch.times, dtype=pl.Int64),
                "partition": pl.repeat(partition, len(batch), dtype=pl.Int32, eager=True),
                "offset": pl.Series(batch.offsets, dtype=pl.Int64),
            }
        )
        self._write(self._folder / f"{partition:05d}-{batch.first:020d}{_ENDING}", frame, facts)

    def origin(self) -> Origin | None:
        """What the folder will say of itself, once all partitions are read and forgotten users are gone."""
        return origin_of(self._folder)

    def finish(self, job: Job) -> Origin:
        """Remove the rows of forgotten users, and give the folder its name. All partitions are read to their end."""
        if (origin := self.origin()) is None:
            origin = self._cleaned(job)
            write_durably(self._folder / ORIGIN, msgspec.json.format(msgspec.json.encode(origin)))
        # What they say beside their rows is counted by now.
        for path in (path for number in map(int, job.ranges) for path in self._of(number)):
            if not pl.scan_parquet(path).select(pl.len()).collect().item():
                path.unlink()
        for unfinished in self._folder.glob(f".*{WRITING}"):
            unfinished.unlink()
        if self._out.is_dir():
            self._out.rmdir()
        self._folder.rename(self._out)
        sync(self._out.parent)
        for name in (_JOB, _LOCK):
            (self._out / name).unlink()
        return origin

    def _cleaned(self, job: Job) -> Origin:
        """Remove the rows of forgotten users from all files, and count."""
        rows, facts = 0, []
        for number in map(int, job.ranges):
            voids = self._voids(number)
            for path in self._of(number):
                frame, known = self._without(path, voids)
                rows += len(frame)
                facts.append(known)
        reasons: dict[str, int] = {}
        for each in facts:
            for reason, count in each.reasons.items():
                reasons[reason] = reasons.get(reason, 0) + count
        return Origin(
            job.topic,
            job.topic_id,
            job.ranges,
            rows,
            sum(each.refused for each in facts),
            reasons,
            sum(each.passed_over for each in facts),
            sum(each.without_time for each in facts),
            sum(each.nulls for each in facts),
        )

    def _of(self, partition: int) -> list[Path]:
        return sorted(self._folder.glob(f"{partition:05d}-*{_ENDING}"))

    def _voids(self, partition: int) -> dict[str, int]:
        """User → the offset of their newest null value in a partition, as far as its files still say it."""
        voids: dict[str, int] = {}
        for path in self._of(partition):
            voids |= self._facts(path).forgotten
        return voids

    def _without(self, path: Path, forgotten: dict[str, int]) -> tuple[pl.DataFrame, Facts]:
        """A file's rows without those of forgotten users, which leave the file too."""
        frame, facts = pl.read_parquet(path), self._facts(path)
        void = pl.DataFrame(
            {"user_id": list(forgotten), "void": list(forgotten.values())},
            schema={"user_id": pl.String, "void": pl.Int64},
        )
        kept = (
            frame.join(void, on="user_id", how="left", maintain_order="left")
            .filter((pl.col("offset") > pl.col("void")).fill_null(value=True))
            .drop("void")
        )
        facts_left = msgspec.structs.replace(facts, forgotten={})
        if len(kept) < len(frame) or facts.forgotten:
            self._write(path, kept, facts_left)
        return kept, facts_left

    def _facts(self, path: Path) -> Facts:
        try:
            return msgspec.json.decode(pl.read_parquet_metadata(path)[_KEY], type=Facts)
        except (KeyError, msgspec.DecodeError, pl.exceptions.PolarsError, OSError) as error:
            raise ExportUnfit(f"{path} is damaged ({error}): remove its folder to begin again") from error

    def _write(self, path: Path, frame: pl.DataFrame, facts: Facts) -> None:
        metadata: Any = {_KEY: msgspec.json.encode(facts).decode()}
        replace_durably(path, lambda stream: frame.write_parquet(stream, metadata=metadata))


def origin_of(folder: Path) -> Origin | None:
    """Where a folder of interactions came from; None if no export wrote it."""
    try:
        return msgspec.json.decode((folder / ORIGIN).read_bytes(), type=Origin)
    except (OSError, msgspec.DecodeError):
        return None
