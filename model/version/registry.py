"""The registry: REGISTRY/NAME/VERSION/ with model.pt and manifest.json.

Versions are never rewritten. The registry does not say which version serves. A version is written into a hidden folder,
which is then renamed, so a reader sees all of it or nothing. Others may copy versions there file by file: a reader
takes only whole ones.
"""

import hashlib
import logging
import re
import secrets
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
from torch import nn

from model.errors import ModelNotFound
from model.version import artifact
from model.version import manifest as manifests
from model.version.artifact import ItemId
from model.version.attributes import Attributes
from model.version.manifest import Manifest

logger = logging.getLogger(__name__)

_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_VERSION: Final = re.compile(r"[1-9][0-9]*")
_REFERENCE: Final = re.compile(
    rf"(?P<name>{_NAME})(?:@(?P<number>[^@#]+)(?:#(?:sha256:)?(?P<sha256>[0-9A-Fa-f]{{64}}))?)?"
)


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version in a registry. `sha256`: what its model.pt must have, where the reference says it."""

    name: str
    version: int
    folder: Path
    sha256: str | None = None

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def program(self) -> Path:
        return self.folder / artifact.PROGRAM

    def manifest(self) -> Manifest:
        path = self.folder / artifact.MANIFEST
        return manifests.decode(path.read_bytes(), str(path))

    def digest(self) -> str:
        """The SHA-256 of model.pt in hexadecimal, as `sha256sum` prints it."""
        with self.program.open("rb") as program:
            return hashlib.file_digest(program, "sha256").hexdigest()

    def lacks(self) -> str | None:
        """Why this version is not whole; None if it is. Nothing of it is loaded.

        A folder that is being copied has files missing, or cut short.
        """
        for name in (artifact.PROGRAM, artifact.MANIFEST):
            if not (self.folder / name).is_file():
                return f"it has no {name}"
        # The list of a zip archive's files is at its end.
        if not zipfile.is_zipfile(self.program):
            return f"{artifact.PROGRAM} is cut short, or not a model"
        try:
            msgspec.json.decode((self.folder / artifact.MANIFEST).read_bytes())
        except (msgspec.DecodeError, UnicodeDecodeError):
            return f"{artifact.MANIFEST} is cut short, or not JSON"
        return None


@dataclass(frozen=True, slots=True)
class Registry:
    """A folder of model versions. Nothing else knows its paths."""

    root: Path

    def names(self) -> list[str]:
        """The models that have a whole version.

        Raises:
            ModelNotFound: the folder cannot be read.
        """
        if not self.root.is_dir():
            return []
        with self._readable():
            names = sorted(entry.name for entry in self.root.iterdir() if _is_name(entry.name))
        return [name for name in names if self.versions(name)]

    def versions(self, name: str) -> list[ModelVersion]:
        """The whole versions, oldest first. Empty for an unknown name."""
        with self._readable():
            return [version for version in self._folders(name) if version.lacks() is None]

    def _folders(self, name: str) -> list[ModelVersion]:
        """The versions, oldest first, whole or not."""
        folder = self.root / name
        if not folder.is_dir():
            return []
        numbers = sorted(int(entry.name) for entry in folder.iterdir() if _VERSION.fullmatch(entry.name))
        return [ModelVersion(name, number, folder / str(number)) for number in numbers]

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ModelNotFound(f"the registry {self.root} cannot be read: {error}") from error

    def resolve(self, reference: str | None) -> ModelVersion:
        """The version that a reference means. NAME: its newest whole version. NAME@VERSION: that version.
        NAME@VERSION#SHA256: that version, if its model.pt has this SHA-256 when it is loaded. None: the newest whole
        version of the only model.

        Raises:
            ModelNotFound: there is no such version, it is not whole, or the reference is None and there are several
                models.
        """
        name, number, sha256 = self._parsed(reference)
        with self._readable():
            folders = self._folders(name)
        incomplete = {version: lack for version in folders if (lack := version.lacks()) is not None}
        whole = [version for version in folders if version not in incomplete]
        if number is None:
            if not whole:
                raise ModelNotFound(f"the registry {self.root} has no model {name!r}: {self._content()}")
            for version, lack in incomplete.items():
                if version.version > whole[-1].version:
                    logger.warning(
                        "version passed over version=%s folder=%s: %s", version.reference, version.folder, lack
                    )
            return whole[-1]
        for version in folders:
            if str(version.version) == number:
                if version in incomplete:
                    raise ModelNotFound(f"{version.folder} is not a whole version: {incomplete[version]}")
                return replace(version, sha256=sha256)
        there = ", ".join(str(version.version) for version in whole) or "none"
        if not folders:
            raise ModelNotFound(f"the registry {self.root} has no model {name!r}: {self._content()}")
        raise ModelNotFound(f"the registry {self.root} has no version {number!r} of {name}: it has {there}")

    def _parsed(self, reference: str | None) -> tuple[str, str | None, str | None]:
        """Name, number and SHA-256 of a reference, as far as it says them."""
        if reference is None:
            names = self.names()
            if not names:
                raise ModelNotFound(f"the registry {self.root} has no model: {self._content()}")
            if len(names) > 1:
                raise ModelNotFound(
                    f"the registry {self.root} has several models: {', '.join(names)}. Set REC2PM_MODEL to one of them"
                )
            return names[0], None, None
        found = _REFERENCE.fullmatch(reference)
        if found is None:
            raise ModelNotFound(
                f"{reference!r} is not NAME, NAME@VERSION or NAME@VERSION#SHA256 (64 hexadecimal digits) of the registry "
                f"{self.root}: {self._content()}"
            )
        sha256 = found["sha256"]
        return found["name"], found["number"], None if sha256 is None else sha256.lower()

    def _content(self) -> str:
        """What is there, in words."""
        if not self.root.exists():
            return f"there is no such folder. `rec2pm train LOG --out {self.root}` makes it"
        if names := self.names():
            return f"it has {', '.join(names)}"
        with self._readable():
            entries = sorted(entry.name for entry in self.root.iterdir() if _is_name(entry.name))
            parts = [f"{version.folder}: {version.lacks()}" for name in entries for version in self._folders(name)]
        if parts:
            return f"it has no whole version ({'; '.join(parts)})"
        return f"it is an empty registry. `rec2pm train LOG --out {self.root}` writes a model into it"

    def check_name(self, name: str) -> None:
        """Raise ModelNotFound if no model can have this name."""
        if not _is_name(name):
            raise ModelNotFound(
                f"{name!r} cannot be the name of a model. A name has letters, digits, '.', '_' and '-', and begins with a letter or digit"
            )

    def add(
        self, network: nn.Module, manifest: Manifest, item_ids: Sequence[ItemId], attributes: Attributes | None = None
    ) -> ModelVersion:
        """Write the next version of `manifest.name`. The number of the version replaces `manifest.version`."""
        self.check_name(manifest.name)
        folder = self.root / manifest.name
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            number = max((v.version for v in self._folders(manifest.name)), default=0) + 1
            hidden, final = folder / f".{number}-{secrets.token_hex(4)}", folder / str(number)
            try:
                _write(network, replace(manifest, version=str(number)), item_ids, attributes, hidden)
                if _renamed(hidden, final):
                    return ModelVersion(manifest.name, number, final)
            finally:
                shutil.rmtree(hidden, ignore_errors=True)


def _write(
    network: nn.Module, manifest: Manifest, item_ids: Sequence[ItemId], attributes: Attributes | None, folder: Path
) -> None:
    folder.mkdir()
    artifact.save(network, manifest, item_ids, folder / artifact.PROGRAM, attributes)
    (folder / artifact.MANIFEST).write_bytes(manifests.encode(manifest))


def _renamed(hidden: Path, final: Path) -> bool:
    """False if another trainer has taken the number meanwhile: a rename never replaces a folder that has files."""
    try:
        hidden.rename(final)
    except OSError:
        if final.exists():
            return False
        raise
    return True


def _is_name(text: str) -> bool:
    return re.fullmatch(_NAME, text) is not None
