"""The registry: REGISTRY/NAME/VERSION/ with model.pt and manifest.json. Versions are never rewritten; what serves is
not said here.

A version is written into a hidden folder and renamed, so a reader sees all of it or nothing.
"""

import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from model.errors import ModelNotFound
from model.version import artifact
from model.version import manifest as manifests
from model.version.artifact import ItemId
from model.version.attributes import Attributes
from model.version.manifest import Manifest


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version in a registry."""

    name: str
    version: int
    folder: Path

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def program(self) -> Path:
        return self.folder / artifact.PROGRAM

    def manifest(self) -> Manifest:
        path = self.folder / artifact.MANIFEST
        return manifests.decode(path.read_bytes(), str(path))


@dataclass(frozen=True, slots=True)
class Registry:
    """A folder of model versions. This is the only place that knows its paths."""

    root: Path

    def names(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return sorted(entry.name for entry in self.root.iterdir() if _is_name(entry.name) and self.versions(entry.name))

    def versions(self, name: str) -> list[ModelVersion]:
        """Oldest first; empty for an unknown name."""
        folder = self.root / name
        if not folder.is_dir():
            return []
        numbers = sorted(int(entry.name) for entry in folder.iterdir() if re.fullmatch(r"[1-9][0-9]*", entry.name))
        return [ModelVersion(name, number, folder / str(number)) for number in numbers]

    def resolve(self, reference: str | None) -> ModelVersion:
        """NAME is its newest version, NAME@VERSION that one, None the newest of the only name there is.

        Raises:
            ModelNotFound: nothing answers, or None with several names.
        """
        names = self.names()
        there = f"; there is {', '.join(names)}" if names else "; it is empty (`rec2pm train` writes into it)"
        if reference is None:
            if len(names) != 1:
                raise ModelNotFound(f"{self.root}: no single model to choose{there}")
            reference = names[0]
        name, _, number = reference.partition("@")
        if not _is_name(name):
            raise ModelNotFound(f"{self.root}: {reference!r} names no model: expected NAME or NAME@VERSION{there}")
        versions = self.versions(name)
        if not versions:
            raise ModelNotFound(f"{self.root}: no model {name!r}{there}")
        if "@" not in reference:
            return versions[-1]
        for version in versions:
            if str(version.version) == number:
                return version
        raise ModelNotFound(
            f"{self.root}: {name} has no version {number!r}; it has {', '.join(str(v.version) for v in versions)}"
        )

    def check_name(self, name: str) -> None:
        """Raise ModelNotFound if no model can have this name."""
        if not _is_name(name):
            raise ModelNotFound(
                f"{name!r} cannot name a model: letters, digits, '.', '_' and '-', a letter or digit first"
            )

    def add(
        self, network: nn.Module, manifest: Manifest, item_ids: Sequence[ItemId], attributes: Attributes | None = None
    ) -> ModelVersion:
        """Write the next version of `manifest.name`; the manifest's own `version` is replaced by the number chosen."""
        self.check_name(manifest.name)
        folder = self.root / manifest.name
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            number = max((v.version for v in self.versions(manifest.name)), default=0) + 1
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
    """False where another trainer took the number meanwhile: a rename never replaces a folder with files in it."""
    try:
        hidden.rename(final)
    except OSError:
        if final.exists():
            return False
        raise
    return True


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) is not None
