"""A network as the files of a version: program, weights, catalogue, golden lists.

The eager module is the source of truth and model.pt one export of it. weights.safetensors has the same weights for
programs that are not written yet: `model.training.rebuilt`.
"""

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from model.errors import ArtifactUnreadable, GoldenMismatch, ManifestMismatch, ModelFailed
from model.version import golden, torchscript
from model.version import manifest as manifests
from model.version.attributes import Attributes
from model.version.checked_files import CheckedFiles
from model.version.manifest import ATTRIBUTES, CATALOGUE, GOLDEN, MANIFEST, PROGRAM, WEIGHTS, Manifest
from model.version.torchscript import Loaded, Program

ItemId = int | str

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A loaded model version. `item_ids[i]` is the item of row i + 1, as it appeared in the log."""

    program: Program
    manifest: Manifest
    item_ids: tuple[ItemId, ...]
    form: str | None = None
    """What other programs must have in common with this one to share its compiled code (`Archive.form`)."""


def files(
    network: nn.Module, manifest: Manifest, item_ids: Sequence[ItemId], attributes: Attributes | None = None
) -> dict[str, bytes]:
    """The files of a version whose network answers the contract, in the order in which they are written: the manifest
    is the last one, because it names the others.


    Raises:
        GoldenMismatch: the network gives answers that cannot be right.
        ModelFailed: the network raises.
    """
    catalogue = msgspec.json.encode(list(item_ids))
    inside = replace(
        manifest,
        program=manifests.Program(torch_version=str(torch.__version__)),
        catalogue_sha256=hashlib.sha256(catalogue).hexdigest(),
        files={},
    )
    program = torchscript.script(network)
    made = {
        PROGRAM: torchscript.saved(program, {MANIFEST: manifests.encode(inside)}),
        WEIGHTS: _weights_as_bytes(program.state_dict()),
        CATALOGUE: catalogue,
        GOLDEN: golden.made(program),
    }
    if attributes is not None:
        made[ATTRIBUTES] = msgspec.json.encode(attributes)
    whole = replace(inside, files={name: manifests.facts(data) for name, data in made.items()})
    return {**made, MANIFEST: manifests.encode(whole)}


def _weights_as_bytes(weights: Mapping[str, Tensor]) -> bytes:
    from safetensors.torch import save  # only what writes versions has it installed

    # A copy of each: safetensors takes no two names of one memory.
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()})


def load(folder: str | Path, sha256: str | None = None, like: Artifact | None = None) -> Artifact:
    """Read and check the version in a folder, or behind a URL.

    TorchScript is code, and this runs it: load only what is trusted. What runs are the bytes whose SHA-256 is that of
    the manifest.

    Args:
        sha256: of the version's manifest.json, in hexadecimal. Nothing of another version is loaded. None: any is.
        like: a version that is loaded; its compiled code is shared if this one has the same.

    Raises:
        VersionUnavailable: a file is missing, or cannot be read.
        DigestMismatch: a file has another SHA-256 than the manifest says, or the manifest another one than `sha256`.
        ArtifactUnreadable: model.pt is not TorchScript, `rec2pm train` did not write it, or a method of the contract is
            missing.
        ManifestUnknown: the manifest is malformed or of an unknown schema.
        ManifestMismatch: weights, manifest and catalogue do not belong together.
    """
    version = CheckedFiles.at(folder, sha256)
    item_ids = _catalogue(version)
    loaded = _program(version, like)
    if loaded.shares_code and not _answers_as_written(version, loaded.program):
        loaded = _program(version)
    program = loaded.program
    missing_methods = [name for name in torchscript.CONTRACT if not hasattr(program, name)]
    if missing_methods:
        raise ArtifactUnreadable(
            f"{version.uri}: the program has no method {', '.join(missing_methods)}. A model needs {', '.join(torchscript.CONTRACT)}"
        )
    _check_weights(version, program.state_dict(), PROGRAM)
    _check_spec(version, program)
    program.eval()
    return Artifact(program, version.manifest, item_ids, loaded.form)


def _program(version: CheckedFiles, like: Artifact | None = None) -> Loaded:
    """The program in model.pt, which says that it is of this version."""
    kind = version.manifest.program.kind
    if kind != "torchscript":
        raise ArtifactUnreadable(
            f"{version.uri}: its program is of kind {kind!r}, this build runs torchscript. A newer rec2pm may have written it"
        )
    data = version.read(PROGRAM)
    try:
        loaded = torchscript.loaded(data, [MANIFEST], None if like is None else (like.program, like.form))
    except (RuntimeError, ValueError) as error:
        why, writer = str(error).splitlines()[0], version.manifest.program.torch_version
        if _release(writer) > _release(torch.__version__):
            raise ArtifactUnreadable(
                f"{version.uri}: torch {writer} wrote {PROGRAM}, and torch {torch.__version__} cannot read it: {why}. "
                "Install that torch here, or train the version again with this one"
            ) from error
        raise ArtifactUnreadable(f"{version.uri}: {PROGRAM} is not a TorchScript artifact: {why}") from error
    if not loaded.inside[MANIFEST]:
        raise ArtifactUnreadable(
            f"{version.uri}: {PROGRAM} is a TorchScript file without {MANIFEST} inside. Only a file that `rec2pm train` wrote is a model"
        )
    if manifests.decode(loaded.inside[MANIFEST], f"{version.uri}: {PROGRAM}!{MANIFEST}") != replace(
        version.manifest, files={}
    ):
        raise ManifestMismatch(
            f"{version.uri}: {MANIFEST} differs from the manifest inside {PROGRAM}: they are of two versions"
        )
    return loaded


def _answers_as_written(version: CheckedFiles, program: Program) -> bool:
    """Whether a program that shares code repeats the golden lists: whoever compiles it anew does not depend on that."""
    try:
        golden.check(program, version.read(GOLDEN))
    except (GoldenMismatch, ModelFailed) as error:
        logger.warning("%s: its code is compiled anew: %s", version.uri, error)
        return False
    return True


def _release(torch_version: str) -> tuple[int, ...]:
    """(2, 13) of 2.13.0+cpu."""
    return tuple(int(part) for part in re.findall(r"[0-9]+", torch_version)[:2])


def _catalogue(version: CheckedFiles) -> tuple[ItemId, ...]:
    try:
        item_ids = tuple(msgspec.json.decode(version.read(CATALOGUE), type=list[ItemId]))
    except msgspec.DecodeError as error:
        raise ArtifactUnreadable(f"{version.uri}: {CATALOGUE} is not a list of item ids: {error}") from error
    if len(item_ids) != version.manifest.n_items:
        raise ManifestMismatch(
            f"{version.uri}: the catalogue has {len(item_ids)} items, {MANIFEST} says {version.manifest.n_items}"
        )
    if version.manifest.files[CATALOGUE].sha256 != version.manifest.catalogue_sha256:
        raise ManifestMismatch(f"{version.uri}: {MANIFEST} has another catalogue_sha256 than that of {CATALOGUE}")
    return item_ids


def _attributes(version: CheckedFiles) -> Attributes | None:
    if not version.has(ATTRIBUTES):
        return None
    try:
        attributes = msgspec.json.decode(version.read(ATTRIBUTES), type=Attributes)
    except msgspec.DecodeError as error:
        raise ArtifactUnreadable(f"{version.uri}: {ATTRIBUTES} is not a list of item attributes: {error}") from error
    if len(attributes.of) != version.manifest.n_items:
        raise ManifestMismatch(
            f"{version.uri}: {ATTRIBUTES} has {len(attributes.of)} items, the catalogue has {version.manifest.n_items}"
        )
    return attributes


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a version by name, the items of its rows, and their attributes if it has any."""

    weights: dict[str, Tensor]
    manifest: Manifest
    item_ids: tuple[ItemId, ...]
    attributes: Attributes | None


def load_weights(folder: str | Path, sha256: str | None = None) -> Weights:
    """The weights of a version, for a training that starts from it. Nothing of model.pt is read, so no code runs.

    Takes and raises what `load` does.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as weights_of

    version = CheckedFiles.at(folder, sha256)
    data = version.read(WEIGHTS)
    try:
        weights = weights_of(data)
    except SafetensorError as error:
        raise ArtifactUnreadable(f"{version.uri}: {WEIGHTS} is not a safetensors file: {error}") from error
    _check_weights(version, weights, WEIGHTS)
    return Weights(weights, version.manifest, _catalogue(version), _attributes(version))


def weights_sha256(network: Any) -> str:
    """One hash over the names, shapes and bytes of all weights. A network, its script and its files have the same."""
    return _sha256_of(network.state_dict())


def _sha256_of(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check_weights(version: CheckedFiles, weights: Mapping[str, Tensor], file: str) -> None:
    found, stated = _sha256_of(weights), version.manifest.weights_sha256
    if found != stated:
        raise ManifestMismatch(
            f"{version.uri}: the weights in {file} have weights_sha256 {found}, {MANIFEST} says {stated}"
        )


def _check_spec(version: CheckedFiles, program: Program) -> None:
    spec = program.spec()
    for name in ("n_items", "segment_length", "state_floats"):
        stated = getattr(version.manifest, name)
        if spec[name] != stated:
            raise ManifestMismatch(f"{version.uri}: the program has {name} {spec[name]}, {MANIFEST} says {stated}")
