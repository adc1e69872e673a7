"""Checkpoints: one file with everything that a training step depends on, so that training can resume after a crash.

The folder of a training is .training/NAME/ in `Registry.training_folder`, which a list of models does not show. It
holds `checkpoint.pt` and the encoded log, and is removed when the version is written. One process at a time has it.
"""

import contextlib
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from model.errors import TrainingUnfinished
from model.version.file_lock import lock
from model.version.manifest import Metrics

FORMAT = 1

Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Epoch:
    """The mean losses of an epoch's steps, and the metrics after it. Epoch 0 is before the first step."""

    number: int
    next_item: float | None
    consistency: float | None
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Training between two steps. Random numbers are drawn from (seed, epoch, step, process), so no state of a
    generator is kept.

    `training` says what is trained: recipe, data, and the version it started from. `epoch` counts finished epochs.
    `step` counts the batches of the current epoch that are done; `next_item` and `consistency` are the sums of their
    losses. `learned_steps` and `samples` count over all epochs. `elapsed_s` is wall time over all attempts.
    `validation_s` is how long the last validation took. `best` is the number of the epoch that has `best_weights`.
    """

    training: dict[str, Any]
    network: Weights
    optimizer: dict[str, Any]
    epoch: int
    step: int
    next_item: float
    consistency: float
    learned_steps: int
    samples: int
    elapsed_s: float
    validation_s: float
    curve: tuple[Epoch, ...]
    best: int
    best_weights: Weights

    @property
    def best_metrics(self) -> Metrics:
        return self.curve[self.best].metrics

    @property
    def reached(self) -> str:
        """How far training is, for a message."""
        return f"epoch {self.epoch + 1}, step {self.step}" if self.step else f"the end of epoch {self.epoch}"


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Replace the file in one step: after a crash there is the old file or the new one."""
    whole = {name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
    whole["curve"] = [asdict(epoch) for epoch in checkpoint.curve]
    beside = path.with_suffix(".new")
    with beside.open("wb") as file:
        torch.save({"format": FORMAT, **whole}, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path: Path) -> Checkpoint:
    """The checkpoint in a file, on the CPU.

    Raises:
        TrainingUnfinished: this build cannot read it.
    """
    if not zipfile.is_zipfile(path):
        raise TrainingUnfinished(f"{path}: not a checkpoint. --discard starts from the beginning")
    try:
        whole = torch.load(path, map_location="cpu", weights_only=True)
        if whole.pop("format", None) != FORMAT:
            raise TrainingUnfinished(
                f"{path}: another build of rec2pm wrote this checkpoint. --discard starts from the beginning"
            )
        whole["curve"] = tuple(msgspec.convert(epoch, Epoch) for epoch in whole["curve"])
        return Checkpoint(**whole)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        EOFError,
        OSError,
        msgspec.ValidationError,
    ) as error:
        raise TrainingUnfinished(f"{path}: not a checkpoint: {error}. --discard starts from the beginning") from error


@dataclass(frozen=True, slots=True)
class TrainingFolder:
    """The folder of a training, while this process has it."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def unfinished(self) -> bool:
        return self.checkpoint.is_file()

    def fresh_data(self) -> Path:
        """An empty folder for the encoded log."""
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(parents=True)
        return self.data

    def discard(self) -> None:
        self.checkpoint.unlink(missing_ok=True)
        shutil.rmtree(self.data, ignore_errors=True)


@contextlib.contextmanager
def held(root: Path, name: str) -> Iterator[TrainingFolder]:
    """The folder for training a model of this name, for this process alone. Afterwards it stays only if it has a
    checkpoint.

    Raises:
        TrainingUnfinished: another process has it.
    """
    folder = root / ".training" / name
    descriptor = lock(folder / "lock")
    if descriptor is None:
        raise TrainingUnfinished(f"{folder}: another process is training {name!r}. Choose another --name for this one")
    training = TrainingFolder(folder)
    try:
        yield training
    finally:
        shutil.rmtree(training.data, ignore_errors=True)
        if not training.unfinished():
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()
        os.close(descriptor)


def differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], but: tuple[str, ...], prefix: str = ""
) -> list[str]:
    """Which values differ between two nested maps, in words. Fields in `but` are not compared."""
    different = []
    for key in sorted({*found, *wanted} - set(but)):
        old, new = found.get(key), wanted.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            different += differences(old, new, but, f"{prefix}{key}.")
        elif old != new:
            different.append(f"{prefix}{key} was {old!r} and is {new!r}")
    return different
