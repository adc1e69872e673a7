"""Files that are whole after a crash: written under a hidden name, brought to the disk, then renamed."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

WRITING: Final = ".new"
"""The ending of a file that is being written; its name begins with a dot."""


def replace_durably(
    path: Path, write: Callable[[BinaryIO], Any], before_renaming: Callable[[], None] = lambda: None
) -> None:
    """Replace a file in one step with what `write` writes."""
    beside = path.with_name(f".{path.name}{WRITING}")
    with beside.open("wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
    before_renaming()
    beside.replace(path)
    sync(path.parent)


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file in one step."""
    replace_durably(path, lambda stream: stream.write(data))


def sync(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
