"""The files of one version. Nothing of a file is handed out before its SHA-256 was compared with the manifest's.

An artifact is code, so this is what stands before every load. The SHA-256 of a version is that of its manifest.json:
the manifest has those of all other files, so it stands for all of them.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from model.errors import DigestMismatch, VersionUnavailable
from model.version import manifest as manifests
from model.version import storage
from model.version.manifest import MANIFEST, Manifest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CheckedFiles:
    """A version whose manifest was read and compared. `uri`: its folder. `raw`: the bytes of its manifest.json, and
    `sha256` that of them.
    """

    uri: str
    manifest: Manifest
    raw: bytes
    sha256: str

    @staticmethod
    def at(folder: str | Path, sha256: str | None = None) -> "CheckedFiles":
        """The version in a folder of this machine, or behind a URL.

        Args:
            sha256: what manifest.json must have. None: any manifest is taken.

        Raises:
            VersionUnavailable: there is no manifest, or it cannot be read.
            DigestMismatch: it has another SHA-256.
            ManifestUnknown: it is malformed or of an unknown schema.
        """
        uri = str(folder)
        where = storage.join(uri, MANIFEST)
        data = _there(storage.read, where)
        found = hashlib.sha256(data).hexdigest()
        if sha256 is not None and found != sha256:
            raise _another_file(where, found, sha256)
        return CheckedFiles(uri, manifests.decode(data, where), data, found)

    def has(self, name: str) -> bool:
        return name in self.manifest.files

    def read(self, name: str) -> bytes:
        """The bytes whose digest was compared: the file may be replaced meanwhile.

        Raises:
            VersionUnavailable: the file is missing, or cannot be read.
            DigestMismatch: its SHA-256 is not that of the manifest.
        """
        if name == MANIFEST:
            return self.raw
        where = storage.join(self.uri, name)
        if not self.has(name):
            raise VersionUnavailable(f"{where}: {MANIFEST} names no such file")
        data = _there(storage.read, where)
        self._compare(name, hashlib.sha256(data).hexdigest())
        return data

    def check(self) -> None:
        """Compare every file with the manifest. Raises what `read` raises."""
        for name in self.manifest.files:
            self._compare(name, _there(storage.sha256, storage.join(self.uri, name)))

    def copy(self, to: Path) -> None:
        """Copy every file that the manifest names, compared with it, into a folder of this machine. The manifest is not
        copied. Raises what `read` raises.
        """
        for name in self.manifest.files:
            _there(partial(storage.copy, to=to / name), storage.join(self.uri, name))
            self._compare(name, storage.sha256(str(to / name)))

    def _compare(self, name: str, found: str) -> None:
        if found != (expected := self.manifest.files[name].sha256):
            raise _another_file(storage.join(self.uri, name), found, expected)


def _there(does: Callable[[str], T], where: str) -> T:
    try:
        return does(where)
    except FileNotFoundError as error:
        raise VersionUnavailable(f"{where}: no such file") from error


def _another_file(where: str, found: str, expected: str) -> DigestMismatch:
    return DigestMismatch(f"{where} has sha256 {found}, expected {expected}: it is another file, and was not loaded")
