"""The registry: REGISTRY/NAME/VERSION/ with the files of a version and manifest.json, in a folder or behind a URL.

Versions are never rewritten, and nothing is renamed. The registry does not say which version serves. A trainer claims a
number by making the file `claim`; then it writes the files, and manifest.json last. A version without a manifest does
not exist. Others may copy versions file by file, in any order: a reader takes only those that have every file that the
manifest names, in its length.
"""

import contextlib
import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from torch import nn

from model.errors import ManifestUnknown, ModelError, ModelNotFound, VersionTaken
from model.version import artifact, storage
from model.version import manifest as manifests
from model.version.artifact import ItemId
from model.version.attributes import Attributes
from model.version.checked_files import CheckedFiles
from model.version.manifest import MANIFEST, Manifest

logger = logging.getLogger(__name__)

CLAIM: Final = "claim"
"""The file that takes a number. It stays: the number of an upload that was killed is not used again."""

_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_VERSION: Final = re.compile(r"[1-9][0-9]*")
_REFERENCE: Final = re.compile(
    rf"(?P<name>{_NAME})(?:@(?P<number>[^@#]+)(?:#(?:sha256:)?(?P<sha256>[0-9A-Fa-f]{{64}}))?)?"
)


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version in a registry. `uri`: its folder, on this machine or behind a URL. `sha256`: what its manifest.json
    must have, where the reference says it.
    """

    name: str
    version: int
    uri: str
    sha256: str | None = None

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def folder(self) -> Path | None:
        """Its folder, if that is on this machine."""
        return storage.local(self.uri)

    def files(self) -> CheckedFiles:
        """Its files. Raises what `CheckedFiles.at` raises."""
        return CheckedFiles.at(self.uri, self.sha256)

    def manifest(self) -> Manifest:
        return self.files().manifest

    def digest(self) -> str:
        """The SHA-256 of the version: that of manifest.json in hexadecimal, as `sha256sum` prints it."""
        return self.files().sha256

    def read(self, file: str) -> bytes:
        """A file of the version, compared with the manifest."""
        return self.files().read(file)

    def lacks(self) -> str | None:
        """Why this version is not whole; None if it is. Nothing of it is loaded, and no file but the manifest is read.

        A folder that is being copied has files missing, or cut short.

        Raises:
            VersionUnavailable: the registry does not answer.
        """
        try:
            there = {entry.name: entry.size for entry in storage.entries(self.uri) if entry.name != CLAIM}
            if MANIFEST not in there:
                return f"it has no {MANIFEST}"
            data = storage.read(storage.join(self.uri, MANIFEST))
        except FileNotFoundError:
            return f"it has no {MANIFEST}"
        try:
            return manifests.lacking(there, manifests.decode(data, MANIFEST))
        except ManifestUnknown as error:
            return str(error)


@dataclass(frozen=True, slots=True)
class Registry:
    """Model versions in a folder, or behind a URL of fsspec. Nothing else knows its paths."""

    root: Path | str

    @property
    def uri(self) -> str:
        return str(self.root)

    @property
    def training_folder(self) -> Path:
        """The folder of this machine where training keeps its checkpoints and its event files: the registry itself, if
        it is a folder. Of a URL, one in the working directory, so that the same command finds it again.
        """
        folder = storage.local(self.uri)
        return Path("var/training") / re.sub(r"[^A-Za-z0-9._]+", "-", self.uri) if folder is None else folder

    def names(self) -> list[str]:
        """The models that have a whole version.

        Raises:
            VersionUnavailable: the registry cannot be read.
        """
        return [name for name in self._names() if any(version.lacks() is None for version in self._folders(name))]

    def versions(self, name: str) -> list[ModelVersion]:
        """The whole versions, oldest first. Empty for an unknown name. Raises what `names` raises."""
        return [version for version in self._folders(name) if version.lacks() is None]

    def _names(self) -> list[str]:
        return sorted(name for name in self._folders_in(self.uri) if _is_name(name))

    def _folders(self, name: str) -> list[ModelVersion]:
        """The versions, oldest first, whole or not."""
        folder = storage.join(self.uri, name)
        numbers = sorted(int(each) for each in self._folders_in(folder) if _VERSION.fullmatch(each))
        return [ModelVersion(name, number, storage.join(folder, str(number))) for number in numbers]

    def _folders_in(self, uri: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return [entry.name for entry in storage.entries(uri) if not entry.is_file]
        return []

    def resolve(self, reference: str | None) -> ModelVersion:
        """The version that a reference means. NAME: its newest whole version. NAME@VERSION: that version.
        NAME@VERSION#SHA256: that version, if its manifest.json has this SHA-256. None: the newest whole version of the
        only model.

        Raises:
            ModelNotFound: there is no such version, it is not whole, or the reference is None and there are several
                models.
            DigestMismatch: its manifest.json has another SHA-256.
            VersionUnavailable: the registry cannot be read.
        """
        name, number, sha256 = self._parsed(reference)
        folders = self._folders(name)
        if number is None:
            return self._newest(name, folders)
        for version in folders:
            if str(version.version) == number:
                if (lack := version.lacks()) is not None:
                    raise ModelNotFound(f"{version.uri} is not a whole version: {lack}")
                pinned = replace(version, sha256=sha256)
                pinned.files()
                return pinned
        if not folders:
            raise ModelNotFound(f"the registry {self.uri} has no model {name!r}: {self._content()}")
        there = ", ".join(str(version.version) for version in folders if version.lacks() is None) or "none"
        raise ModelNotFound(f"the registry {self.uri} has no version {number!r} of {name}: it has {there}")

    def place_of(self, reference: str) -> ModelVersion:
        """The version that a reference means, whole or not, to say what is wrong with it. NAME is its newest whole one.

        Raises what `resolve` raises; not if NAME@VERSION is there and not whole.
        """
        name, number, sha256 = self._parsed(reference)
        there = [each for each in self._folders(name) if str(each.version) == number]
        return replace(there[0], sha256=sha256) if there else self.resolve(reference)

    def _newest(self, name: str, folders: Sequence[ModelVersion]) -> ModelVersion:
        passed_over: list[tuple[ModelVersion, str]] = []
        for version in reversed(folders):
            if (lack := version.lacks()) is None:
                for other, why in passed_over:
                    logger.warning("version passed over version=%s folder=%s: %s", other.reference, other.uri, why)
                return version
            passed_over.append((version, lack))
        raise ModelNotFound(f"the registry {self.uri} has no model {name!r}: {self._content()}")

    def _parsed(self, reference: str | None) -> tuple[str, str | None, str | None]:
        """Name, number and SHA-256 of a reference, as far as it says them."""
        if reference is None:
            names = self.names()
            if not names:
                raise ModelNotFound(f"the registry {self.uri} has no model: {self._content()}")
            if len(names) > 1:
                raise ModelNotFound(
                    f"the registry {self.uri} has several models: {', '.join(names)}. Set REC2PM_MODEL to one of them"
                )
            return names[0], None, None
        found = _REFERENCE.fullmatch(reference)
        if found is None:
            raise ModelNotFound(
                f"{reference!r} is not NAME, NAME@VERSION or NAME@VERSION#SHA256 (64 hexadecimal digits) of the registry "
                f"{self.uri}: {self._content()}"
            )
        sha256 = found["sha256"]
        return found["name"], found["number"], None if sha256 is None else sha256.lower()

    def _content(self) -> str:
        """What is there, in words."""
        folder = storage.local(self.uri)
        if folder is not None and not folder.exists():
            return f"there is no such folder. `rec2pm train LOG --out {self.uri}` makes it"
        if names := self.names():
            return f"it has {', '.join(names)}"
        parts = [f"{version.uri}: {version.lacks()}" for name in self._names() for version in self._folders(name)]
        if parts:
            return f"it has no whole version ({'; '.join(parts)})"
        return f"it is an empty registry. `rec2pm train LOG --out {self.uri}` writes a model into it"

    def check_name(self, name: str) -> None:
        """Raise ModelNotFound if no model can have this name."""
        if not _is_name(name):
            raise ModelNotFound(
                f"{name!r} cannot be the name of a model. A name has letters, digits, '.', '_' and '-', and begins with a letter or digit"
            )

    def add(
        self, network: nn.Module, manifest: Manifest, item_ids: Sequence[ItemId], attributes: Attributes | None = None
    ) -> ModelVersion:
        """Write the next version of `manifest.name`. The number of the version replaces `manifest.version`.

        Raises:
            ModelNotFound: no model can have this name.
            VersionUnavailable: the registry cannot be read or written. Nothing is there, or a version that is not
                whole.
        """
        self.check_name(manifest.name)
        version = self._claimed(manifest.name)
        written: list[str] = []
        try:
            files = artifact.files(network, replace(manifest, version=str(version.version)), item_ids, attributes)
            for name, data in files.items():
                written.insert(0, name)
                storage.write(storage.join(version.uri, name), data)
        except BaseException:
            self._withdraw(version, written)
            raise
        return version

    def take(self, other: ModelVersion) -> ModelVersion:
        """Copy a version from elsewhere, under its own name and number. An interrupted copy is continued.

        Raises:
            VersionTaken: the registry has another version of this name and number, or somebody is writing one.
            ModelError: its files are not right, or the registry cannot be read or written.
        """
        self.check_name(other.name)
        files, uri = other.files(), storage.join(self.uri, other.name, str(other.version))
        claim, taken = storage.join(uri, CLAIM), f"a copy of the version whose sha256 is {files.sha256}\n".encode()
        if (there := self._there(uri)) is None:
            if not storage.create(claim, taken) and storage.read(claim) != taken:
                raise VersionTaken(
                    f"{other.reference} of {other.uri} cannot be copied to {uri}: somebody else has begun to write that version"
                )
            for name in (*files.manifest.files, MANIFEST):
                storage.write(storage.join(uri, name), files.read(name))
        elif there != files.sha256:
            raise VersionTaken(
                f"{other.reference} of {other.uri} has sha256 {files.sha256}, and the registry {self.uri} has another "
                f"{other.reference}, with sha256 {there}. Train it again under another name, or use another registry"
            )
        return ModelVersion(other.name, other.version, uri, files.sha256)

    def _there(self, uri: str) -> str | None:
        """The SHA-256 of the version in a folder; None if there is none."""
        try:
            return hashlib.sha256(storage.read(storage.join(uri, MANIFEST))).hexdigest()
        except FileNotFoundError:
            return None

    def _claimed(self, name: str) -> ModelVersion:
        """A number that nobody else has, and no folder."""
        number = max((version.version for version in self._folders(name)), default=0)
        while True:
            number += 1
            uri = storage.join(self.uri, name, str(number))
            if storage.create(storage.join(uri, CLAIM), b"this number is taken\n"):
                return ModelVersion(name, number, uri)

    def _withdraw(self, version: ModelVersion, written: Sequence[str]) -> None:
        """Remove what is there of a version that could not be written: the manifest first, the claim last."""
        with contextlib.suppress(ModelError, OSError):
            for name in (*written, CLAIM):
                storage.remove(storage.join(version.uri, name))
            if version.folder is not None:
                version.folder.rmdir()


def _is_name(text: str) -> bool:
    return re.fullmatch(_NAME, text) is not None
