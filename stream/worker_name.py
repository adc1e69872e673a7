"""A worker's slot: the name that is the same after a restart and never shared by two live workers.

Kafka uses it to end what a dead worker left open (transactional id). It is a file in the state folder, held with a lock
that the operating system releases when the process dies: the next process on this folder takes over the first slot that
nobody holds.
"""

import fcntl
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stream.errors import SettingsInvalid

_MADE_UP: Final = re.compile(r"w-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Slot:
    """A held slot; it is held until the process ends or `release`."""

    name: str
    descriptor: int

    def release(self) -> None:
        os.close(self.descriptor)


def hold(folder: Path, name: str | None) -> Slot:
    """Hold the slot `name`, or with None the first free one of `folder`, made when there is none.

    Raises:
        SettingsInvalid: the named slot is held by a live process, or the folder cannot be written.
    """
    try:
        return _hold(folder, name)
    except OSError as error:
        raise SettingsInvalid(f"REC2PM_STATE_DIR: {folder} cannot be used: {error}") from error


def _hold(folder: Path, name: str | None) -> Slot:
    folder.mkdir(parents=True, exist_ok=True)
    if name is not None:
        slot = _held(folder / name)
        if slot is None:
            raise SettingsInvalid(
                f"REC2PM_WORKER={name}: a live worker holds this slot in {folder} (pid {(folder / name).read_text().strip() or 'unknown'})"
            )
        return slot
    for known in sorted(folder.iterdir()):
        if not _MADE_UP.fullmatch(known.name):
            continue  # kept for the worker that an operator gave this name
        slot = _held(known)
        if slot is not None:
            return slot
    while True:
        slot = _held(folder / f"w-{secrets.token_hex(4)}")
        if slot is not None:
            return slot


def _held(path: Path) -> Slot | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return Slot(path.name, descriptor)
