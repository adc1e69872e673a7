"""A lock on a file. The operating system releases it when its process ends, however it ends.

The only file that knows flock. Training locks the folder of a model's name with it, a worker its own name, and the
cache of versions what it has handed out. `model`
may not import `stream`, and of `model` a worker imports only this package and the errors: so it is here.
"""

import fcntl
import os
from pathlib import Path


def lock(path: Path) -> int | None:
    """Lock a file for this process; returns its descriptor, or None while another descriptor holds a lock.

    The file and its folder are made where they are missing. The lock is held until the descriptor is closed; processes
    that this one starts do not inherit it.

    Raises:
        OSError: the file cannot be opened.
    """
    try:
        return _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None


def wait_for(path: Path) -> int:
    """As `lock`, but it waits while another descriptor holds a lock."""
    return _locked(path, fcntl.LOCK_EX)


def share(path: Path) -> int:
    """As `lock`, but together with others that share the file. It waits while another descriptor has locked it."""
    return _locked(path, fcntl.LOCK_SH)


def _locked(path: Path, how: int) -> int:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, how)
        except OSError:
            os.close(descriptor)
            raise
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the locked file is still the one at the path: its last holder may have removed it before we locked it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
