"""A worker's name: the same after a restart, and never shared by two live workers.

Kafka uses the name to end what a dead worker left open (it is part of the transactional id). A name is a file in the
state folder, locked by the worker that has it. The operating system releases the lock when the process ends: the next
process on this folder claims the first name that is free.
"""

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model.version.file_lock import lock
from stream.errors import SettingsInvalid

_MADE_UP: Final = re.compile(r"w-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class WorkerName:
    """A claimed name: this process has it until it ends, or until `release`."""

    name: str
    descriptor: int

    def release(self) -> None:
        os.close(self.descriptor)


def claim(folder: Path, name: str | None) -> WorkerName:
    """Claim `name`, or with None the first free name of the folder; a new one is made up when none is free.

    Raises:
        SettingsInvalid: a live process has the name, or the folder cannot be written.
    """
    try:
        return _claim_first_free(folder) if name is None else _claim_given(folder, name)
    except OSError as error:
        raise SettingsInvalid(f"REC2PM_STATE_DIR: {folder} cannot be used: {error}") from error


def _claim_given(folder: Path, name: str) -> WorkerName:
    claimed = _claim(folder / name)
    if claimed is None:
        process = (folder / name).read_text().strip() or "unknown"
        raise SettingsInvalid(
            f"REC2PM_WORKER={name}: a live worker (pid {process}) has this name in {folder}; each live worker needs its own"
        )
    return claimed


def _claim_first_free(folder: Path) -> WorkerName:
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        # Other names are kept for the workers that an operator gave them to.
        if _MADE_UP.fullmatch(path.name) and (claimed := _claim(path)) is not None:
            return claimed
    while True:
        claimed = _claim(folder / f"w-{secrets.token_hex(4)}")
        if claimed is not None:
            return claimed


def _claim(path: Path) -> WorkerName | None:
    descriptor = lock(path)
    if descriptor is None:
        return None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return WorkerName(path.name, descriptor)
