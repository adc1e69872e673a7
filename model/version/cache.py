"""Copies of versions on this machine, so that a worker serves although the registry is away.

```
CACHE/SHA256/       the files of a version; SHA256 is that of its manifest.json
CACHE/SHA256.part/  a copy that is being made, or whose maker was killed
CACHE/SHA256.copy   locked by the process that makes the copy
CACHE/SHA256.lock   shared by every process that uses the version or copies it; its time is that of the last use
```

Several processes may have one folder. A copy gets its name when it is whole, so a process that is killed leaves no half
version. What is handed out is compared with its manifest each time. Whoever removes a version locks it first, so
nothing is removed that a process was just handed out.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from model.errors import ModelError, VersionUnavailable
from model.version.checked_files import CheckedFiles
from model.version.file_lock import lock, share, wait_for
from model.version.manifest import MANIFEST
from model.version.registry import ModelVersion

_OURS: Final = re.compile(r"(?P<sha256>[0-9a-f]{64})(\.lock|\.copy|\.part)?")
_REFUSED_NS: Final = 0
"""The time of use of a version that was refused."""


class Cache:
    """A folder of copies. One thread at a time uses an object; several objects and processes may have one folder.

    Args:
        keep: versions that stay: those that were used last. Others that a process has just been handed out stay too.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep is {keep}, must be at least 1")
        self.folder, self.keep = folder, keep
        self._held: dict[str, int] = {}  # SHA-256 → descriptor of its lock; the one handed out last is the last

    def fetch(self, version: ModelVersion) -> Path:
        """The folder of a copy of a version, every file compared with the manifest, and the manifest with
        `version.sha256` if that is set. If that is set and the copy is there, the registry is not asked.

        The copy stays at least until this object has handed out `keep` other versions.

        Raises:
            VersionUnavailable: the registry does not answer, a file of the version is missing, or it cannot be written
                here.
            DigestMismatch: a file of the version is not the one that its manifest or `version.sha256` means.
            ManifestUnknown: the manifest is malformed or of an unknown schema.
        """
        if version.sha256 is not None and (there := self.find(version.sha256)) is not None:
            return there
        files = version.files()
        if (there := self.find(files.sha256)) is not None:
            return there
        with self._writable(files.uri):
            there = self._copied(files)
        if there is None:
            raise VersionUnavailable(f"the copy of {files.uri} in {self.folder} was damaged at once: check the disk")
        return there

    def find(self, sha256: str) -> Path | None:
        """The folder of the copy of the version with this SHA-256; None if there is none, or it is damaged."""
        if not (folder := self.folder / sha256).is_dir():
            return None
        with self._writable(str(folder)):
            held = share(self._lock_of(sha256))
        if not _is_whole(folder, sha256):
            os.close(held)
            return None
        self._hand_out(sha256, held)
        return folder

    def newest(self) -> Path | None:
        """The folder of the whole version that was used last, by any process; None if there is none. A version that was
        refused is not among them.
        """
        for sha256, used_ns in self._by_use():
            if used_ns != _REFUSED_NS and (folder := self.find(sha256)) is not None:
                return folder
        return None

    def refused(self, folder: Path) -> None:
        """Say that the version in a folder of this cache is of no use: `newest` passes it over, and it is the first to
        be removed.
        """
        with self._writable(str(folder)):
            os.utime(self._lock_of(folder.name), ns=(_REFUSED_NS, _REFUSED_NS))

    def _copied(self, files: CheckedFiles) -> Path | None:
        """Make the copy, unless another process does so meanwhile."""
        final, part = self.folder / files.sha256, self.folder / f"{files.sha256}.part"
        with contextlib.ExitStack() as afterwards:
            # Shared, so that nobody takes the copy for an abandoned one.
            afterwards.callback(os.close, share(self._lock_of(files.sha256)))
            afterwards.callback(os.close, wait_for(self.folder / f"{files.sha256}.copy"))
            if (there := self.find(files.sha256)) is not None:
                return there
            for left in (part, final):  # of a process that was killed; damaged
                shutil.rmtree(left, ignore_errors=True)
            part.mkdir()
            afterwards.callback(shutil.rmtree, part, ignore_errors=True)
            files.copy(part)
            (part / MANIFEST).write_bytes(files.raw)
            part.rename(final)
            return self.find(files.sha256)

    def _hand_out(self, sha256: str, held: int) -> None:
        before = self._held.pop(sha256, None)
        self._held[sha256] = held
        if before is not None:
            os.close(before)
        for old in list(self._held)[: -self.keep]:
            os.close(self._held.pop(old))
        by_use = self._by_use()
        # Later than every other, whatever the clock says.
        now_ns = 1 + max(used_ns for _, used_ns in by_use)
        with contextlib.suppress(OSError):  # a folder that is full or read-only still has its versions
            os.utime(self._lock_of(sha256), ns=(now_ns, now_ns))
            whole = [each for each, _ in self._by_use() if (self.folder / each).is_dir()]
            for each, _ in by_use:
                if each not in whole[: self.keep]:
                    self._remove_if_unused(each)

    def _remove_if_unused(self, sha256: str) -> None:
        """Remove all that belongs to a version, unless a process uses or copies it."""
        descriptor = lock(self._lock_of(sha256))
        if descriptor is None:
            return
        try:
            for folder in (sha256, f"{sha256}.part"):
                shutil.rmtree(self.folder / folder, ignore_errors=True)
            (self.folder / f"{sha256}.copy").unlink(missing_ok=True)
            self._lock_of(sha256).unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def _by_use(self) -> list[tuple[str, int]]:
        """The SHA-256 and the time of the last use of every version, whole or not; the one used last comes first."""
        if not self.folder.is_dir():
            return []
        there = {found["sha256"] for path in self.folder.iterdir() if (found := _OURS.fullmatch(path.name))}
        used = dict.fromkeys(there, 1)
        for sha256 in there:
            with contextlib.suppress(FileNotFoundError):
                used[sha256] = self._lock_of(sha256).stat().st_mtime_ns
        return sorted(used.items(), key=lambda each: each[1], reverse=True)

    def _lock_of(self, sha256: str) -> Path:
        return self.folder / f"{sha256}.lock"

    @contextmanager
    def _writable(self, uri: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise VersionUnavailable(f"{uri} cannot be kept in {self.folder}: {error}") from error


def _is_whole(folder: Path, sha256: str) -> bool:
    try:
        CheckedFiles.at(folder, sha256).check()
    except ModelError:
        return False
    return True
