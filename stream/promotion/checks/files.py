"""The check `files`: every file is there with its SHA-256, and this build and the running workers can read it.

Nothing of the version is loaded here: the trial does that, in a child process. This check cannot be passed over,
because every worker makes it too, and refuses the version.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import torch

from model.errors import ModelError
from model.ids import Id
from model.version.manifest import CATALOGUE, MANIFEST, Manifest
from model.version.registry import ModelVersion
from stream.promotion.record import Check

NAME: Final = "files"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A version in a local folder, every file of it compared with its manifest. `bytes`: the size of all of them."""

    folder: Path
    manifest: Manifest
    sha256: str
    bytes: int

    @property
    def reference(self) -> str:
        return self.manifest.reference

    def catalogue(self) -> list[Id]:
        return msgspec.json.decode((self.folder / CATALOGUE).read_bytes(), type=list[Id])


def fetched(version: ModelVersion, into: Path) -> Fetched:
    """Copy the files of a version into a new folder.

    Raises:
        ModelError: what is wrong with its files, or why they are out of reach.
    """
    files = version.files()
    into.mkdir()
    files.copy(into)
    (into / MANIFEST).write_bytes(files.raw)
    return Fetched(into, files.manifest, files.sha256, sum(path.stat().st_size for path in into.iterdir()))


def files(version: ModelVersion, into: Path, segment_length: int | None) -> tuple[Check, Fetched | None]:
    """The check, and the version if it passed.

    Args:
        into: a folder that does not exist yet.
        segment_length: the champion's; None if there is none.
    """
    try:
        found = fetched(version, into)
    except ModelError as error:
        return Check(name=NAME, result="failed", figure=str(error)), None
    manifest = found.manifest
    if wrong := _unreadable(version, manifest, segment_length):
        return Check(name=NAME, result="failed", figure=wrong), None
    return Check(
        name=NAME,
        result="passed",
        figure=f"{len(manifest.files) + 1} files, {found.bytes / 1e6:.1f} MB, manifest sha256 {found.sha256[:12]}…; "
        f"{manifest.program.kind} of torch {manifest.program.torch_version}, segments of {manifest.segment_length}",
    ), found


def _unreadable(version: ModelVersion, manifest: Manifest, segment_length: int | None) -> str | None:
    """Why workers like this build cannot serve it; None if they can."""
    if manifest.reference != version.reference:
        return f"its manifest says that it is {manifest.reference}, and it is where {version.reference} is expected"
    if manifest.program.kind != "torchscript":
        return f"its program is {manifest.program.kind!r}, this build runs torchscript"
    if _release(manifest.program.torch_version) > _release(torch.__version__):
        return (
            f"torch {manifest.program.torch_version} wrote its program, and this is torch {torch.__version__}, which reads "
            "programs of its own release and of earlier ones"
        )
    if segment_length is not None and manifest.segment_length != segment_length:
        return (
            f"it folds segments of {manifest.segment_length}, the champion of {segment_length}: what workers store fits "
            "only one of them"
        )
    return None


def _release(version: str) -> tuple[int, ...]:
    """Major and minor; a version that is none counts as very old."""
    parts = version.split("+")[0].split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit())
