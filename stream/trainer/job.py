"""One training of a trainer, as files in LOG/.training, so that it goes on where it was after any end of the process.

    job.json       what is to be done; without it there is no training
    data/          what is learned from: the files of the log as they were, by hard links
    start.json     the version that the training starts from
    work/          checkpoint and encoded log, as `rec2pm train` keeps them
    trained.json   the version that came out of it
    ended.json     how it ended; then the folder goes

Nothing here imports torch: the trainer itself does not compute. A process of its own does (`stream.trainer.run_job`).
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from stream.durable_files import write_durably
from stream.trainer.log import TRAINING, TrainingLog
from stream.trainer.points import At, Point, passing

_LAST: Final = ".last-training.json"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a training does. `until`: partition as text → the offset up to which the log was read."""

    id: str
    """What the manifest calls the log."""
    began_ms: int
    rows: int
    name: str | None
    """Of the model; None: that of the version that the training starts from."""
    recipe: str | None
    """None: that of the version that the training starts from."""
    settings: tuple[str, ...]
    keep_format: bool
    promote: bool
    threads: int
    forgotten: int
    """Null values that were obeyed."""
    until: Mapping[str, int]


class Start(msgspec.Struct, frozen=True):
    """The version that a training starts from; None: from nothing."""

    version: str | None
    uri: str | None
    sha256: str | None


class Trained(msgspec.Struct, frozen=True):
    """What came out of a training. `why` says why there is no version."""

    version: str | None
    sha256: str | None
    why: str | None


class Ended(msgspec.Struct, frozen=True):
    """How a training ended, in words."""

    version: str | None
    words: str


class Last(msgspec.Struct, frozen=True):
    """The training before: when it began, epoch ms, and up to which offsets it had the log."""

    began_ms: int
    until: Mapping[str, int]


_T = TypeVar("_T", Job, Start, Trained, Ended, Last)


@dataclass(frozen=True, slots=True)
class JobFolder:
    """The folder of a training."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def job(self) -> Job | None:
        return _read(self.folder / "job.json", Job)

    def start(self) -> Start | None:
        return _read(self.folder / "start.json", Start)

    def trained(self) -> Trained | None:
        return _read(self.folder / "trained.json", Trained)

    def ended(self) -> Ended | None:
        return _read(self.folder / "ended.json", Ended)

    def note(self, what: Start | Trained | Ended) -> None:
        """Write down how far the training is."""
        write_durably(self.folder / f"{type(what).__name__.lower()}.json", msgspec.json.encode(what))


class Jobs:
    """The training that is under way, and the one before it."""

    def __init__(self, log: TrainingLog, at: At = passing) -> None:
        self._log, self._at = log, at
        self.folder: Final = JobFolder(log.folder / TRAINING)

    @property
    def last(self) -> Last | None:
        return _read(self._log.folder / _LAST, Last)

    def unfinished(self) -> Job | None:
        """The training that an earlier process of the trainer began.

        It is given up if users were forgotten since: what it learns from still has them.
        """
        job = self.folder.job()
        if job is not None and self._log.forgotten.users > job.forgotten and self.folder.trained() is None:
            self._remove()
            return None
        return job

    def begin(self, job: Job) -> None:
        """Set the log aside as it is now, and note the training."""
        self._remove()
        self._log.link(self.folder.data)
        self._at(Point.LINKED)
        write_durably(self.folder.folder / "job.json", msgspec.json.encode(job))
        self._at(Point.NOTED)

    def finish(self, job: Job) -> None:
        """Note that the training has ended, and remove what belongs to it."""
        write_durably(self._log.folder / _LAST, msgspec.json.encode(Last(job.began_ms, job.until)))
        self._remove()
        self._at(Point.FINISHED)

    def _remove(self) -> None:
        # job.json goes first: a folder without it is no training.
        (self.folder.folder / "job.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder.folder, ignore_errors=True)


def _read(path: Path, to: type[_T]) -> _T | None:
    """What is written in a file; None if there is none. These files are replaced in one step, so they are whole."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=to)
    except FileNotFoundError:
        return None
