"""The registry: REGISTRY/NAME/VERSION/ with model.pt and manifest.json.

Versions are never rewritten. The registry does not say which version serves. A version is written into a hidden folder,
which is then renamed, so a reader sees all of it or nothing.
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
    """A folder of model versions. Nothing else knows its paths."""

    root: Path

    def names(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return sorted(entry.name for entry in self.root.iterdir() if _is_name(entry.name) and self.versions(entry.name))

    def versions(self, name: str) -> list[ModelVersion]:
        """Oldest first. Empty for an unknown name."""
        folder = self.root / name
        if not folder.is_dir():
            return []
        numbers = sorted(int(entry.name) for entry in folder.iterdir() if re.fullmatch(r"[1-9][0-9]*", entry.name))
        return [ModelVersion(name, number, folder / str(number)) for number in numbers]

    def resolve(self, reference: str | None) -> ModelVersion:
        """The version that a reference means. NAME: its newest version. NAME@VERSION: that version. None: the newest
        version of the only model.

        Raises:
            ModelNotFound: there is no such version, or the reference is None and there are several models.
        """
        names = self.names()
        there = f"it has {', '.join(names)}" if names else "it is empty: `rec2pm train --out` writes into it"
        if reference is None:
            if len(names) != 1:
                several = f"several models, name one of {', '.join(names)}"
                raise ModelNotFound(f"the registry {self.root} has {several if names else f'no model: {there}'}")
            reference = names[0]
        name, _, number = reference.partition("@")
        if not _is_name(name):
            raise ModelNotFound(f"{reference!r} is not NAME or NAME@VERSION of the registry {self.root}: {there}")
        versions = self.versions(name)
        if not versions:
            raise ModelNotFound(f"the registry {self.root} has no model {name!r}: {there}")
        if "@" not in reference:
            return versions[-1]
        for version in versions:
            if str(version.version) == number:
                return version
        raise ModelNotFound(
            f"the registry {self.root} has no version {number!r} of {name}: it has {', '.join(str(v.version) for v in versions)}"
        )

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
    """False if another trainer has taken the number meanwhile: a rename never replaces a folder that has files."""
    try:
        hidden.rename(final)
    except OSError:
        if final.exists():
            return False
        raise
    return True


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) is not None
