"""The files of one version. Nothing of a file is handed out before its SHA-256 was compared with the manifest's.

An artifact is code, so this is what stands before every load. The SHA-256 of a version is that of its manifest.json:
the manifest has those of all other files, so it stands for all of them.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from model.errors import DigestMismatch, VersionUnavailable
from model.version import manifest as manifests
from model.version import storage
from model.version.manifest import MANIFEST, Manifest


@dataclass(frozen=True, slots=True)
class CheckedFiles:
    """A version whose manifest was read and compared. `uri`: its folder. `sha256`: of its manifest.json."""

    uri: str
    manifest: Manifest
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
        data = _read(where)
        found = hashlib.sha256(data).hexdigest()
        if sha256 is not None and found != sha256:
            raise _another_file(where, found, sha256)
        return CheckedFiles(uri, manifests.decode(data, where), found)

    def has(self, name: str) -> bool:
        return name in self.manifest.files

    def read(self, name: str) -> bytes:
        """The bytes whose digest was compared: the file may be replaced meanwhile.

        Raises:
            VersionUnavailable: the file is missing, or cannot be read.
            DigestMismatch: its SHA-256 is not that of the manifest.
        """
        where = storage.join(self.uri, name)
        if name != MANIFEST and not self.has(name):
            raise VersionUnavailable(f"{where}: {MANIFEST} names no such file")
        data = _read(where)
        found = hashlib.sha256(data).hexdigest()
        expected = self.sha256 if name == MANIFEST else self.manifest.files[name].sha256
        if found != expected:
            raise _another_file(where, found, expected)
        return data


def _read(where: str) -> bytes:
    try:
        return storage.read(where)
    except FileNotFoundError as error:
        raise VersionUnavailable(f"{where}: no such file") from error


def _another_file(where: str, found: str, expected: str) -> DigestMismatch:
    return DigestMismatch(f"{where} has sha256 {found}, expected {expected}: it is another file, and was not loaded")
