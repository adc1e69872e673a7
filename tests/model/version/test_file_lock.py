"""A file has one holder at a time, and a lock is on the file that is at its path."""

import fcntl
import os
from pathlib import Path

import pytest

from model.version.file_lock import lock


def test_a_locked_file_is_refused_until_its_descriptor_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "not" / "there" / "lock"
    first = lock(path)
    assert first is not None
    assert lock(path) is None
    os.close(first)
    second = lock(path)
    assert second is not None
    os.close(second)


def test_a_file_that_its_last_holder_removed_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flock, removed = tmp_path / "lock", fcntl.flock, []

    def removes_it_first(descriptor: int, operation: int) -> None:
        if not removed:
            removed.append(path.unlink())
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removes_it_first)
    held = lock(path)
    assert held is not None
    assert removed
    assert lock(path) is None, "what is at the path is locked, not what was there"
    os.close(held)


def test_a_folder_that_cannot_be_made_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        lock(tmp_path / "file" / "lock")
