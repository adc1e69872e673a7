"""A network as one file: TorchScript with its manifest and catalogue inside. Every use of `torch.jit` is here.

TorchScript is deprecated, but complete in torch 2.13. The eager module is the source of truth and the artifact one
export of it, so another format would change only this file (docs/decisions/0008-torchscript.md).
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from model.errors import ArtifactUnreadable, DigestMismatch, ManifestMismatch
from model.version import manifest as manifests
from model.version.attributes import Attributes
from model.version.manifest import Manifest

MANIFEST = "manifest.json"
CATALOGUE = "catalogue.json"
ATTRIBUTES = "attributes.json"
"""In versions whose items have attributes. Training needs them to start from such a version; serving does not."""
PROGRAM = "model.pt"

CONTRACT = ("spec", "initial_memory", "update", "recommend", "rank")
"""The methods of a program: all that a worker calls. A program may have more."""

Program = Any
"""A scripted module with the methods of `CONTRACT`, which TorchScript's types cannot say."""

PROGRAM_FAILURES = (RuntimeError, torch.jit.Error)
"""What a call of a program raises: the error of an operation, or one that the program itself raises."""

ItemId = int | str


@dataclass(frozen=True, slots=True)
class Artifact:
    """A loaded model version. `item_ids[i]` is the item of row i + 1, as it appeared in the log."""

    program: Program
    manifest: Manifest
    item_ids: tuple[ItemId, ...]


def save(
    network: nn.Module, manifest: Manifest, item_ids: Sequence[ItemId], path: Path, attributes: Attributes | None = None
) -> None:
    """Write a network that answers the contract, scripted, with manifest and catalogue.

    It is not frozen, because freezing drops the names of the weights.
    """
    extra = {MANIFEST: manifests.encode(manifest), CATALOGUE: msgspec.json.encode(list(item_ids))}
    if attributes is not None:
        extra[ATTRIBUTES] = msgspec.json.encode(attributes)
    torch.jit.save(script(network), str(path), _extra_files=extra)


def script(network: nn.Module, methods: Sequence[str] = CONTRACT) -> Program:
    """The network as TorchScript. `methods` can be called on it."""
    for name in methods:
        torch.jit.export(getattr(type(network), name))
    return torch.jit.script(network.eval())


def frozen(program: Program, methods: Sequence[str] = CONTRACT) -> Program:
    """The same program with its weights as constants. It keeps only `methods`."""
    return torch.jit.freeze(program.eval(), preserved_attrs=list(methods))


def load(path: Path, sha256: str | None = None) -> Artifact:
    """Read, check, freeze and warm up an artifact. A manifest.json beside it must equal the one inside.

    TorchScript is code, and this runs it: load only what is trusted.

    Args:
        sha256: of the file, in hexadecimal. Nothing of another file is loaded. None: any file is.

    Raises:
        DigestMismatch: the file has another SHA-256.
        ArtifactUnreadable: there is no such file, it is not TorchScript, `rec2pm train` did not write it, or a method
            of the contract is missing.
        ManifestUnknown: the manifest is malformed or of an unknown schema.
        ManifestMismatch: weights, manifest and catalogue do not belong together.
    """
    program, manifest, item_ids, _ = _read(path, sha256)
    missing_methods = [name for name in CONTRACT if not hasattr(program, name)]
    if missing_methods:
        raise ArtifactUnreadable(
            f"{path}: the program has no method {', '.join(missing_methods)}. A model needs {', '.join(CONTRACT)}"
        )
    _check(path, program, manifest, item_ids)
    program = frozen(program)
    warm_up(program)
    return Artifact(program, manifest, item_ids)


def _read(path: Path, sha256: str | None = None) -> tuple[Program, Manifest, tuple[ItemId, ...], Attributes | None]:
    extra: dict[str, Any] = {MANIFEST: "", CATALOGUE: "", ATTRIBUTES: ""}
    if not path.is_file():
        raise ArtifactUnreadable(f"{path}: no such file")
    source = str(path) if sha256 is None else _checked(path, sha256)
    try:
        program = torch.jit.load(source, map_location="cpu", _extra_files=extra)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise ArtifactUnreadable(f"{path}: not a TorchScript artifact: {str(error).splitlines()[0]}") from error
    if not extra[MANIFEST] or not extra[CATALOGUE]:
        missing = MANIFEST if not extra[MANIFEST] else CATALOGUE
        raise ArtifactUnreadable(
            f"{path}: a TorchScript file without {missing} inside. Only a file that `rec2pm train` wrote is a model"
        )
    manifest = manifests.decode(extra[MANIFEST], f"{path}!{MANIFEST}")
    try:
        item_ids = tuple(msgspec.json.decode(extra[CATALOGUE], type=list[ItemId]))
    except msgspec.DecodeError as error:
        raise ArtifactUnreadable(f"{path}!{CATALOGUE}: not a list of item ids: {error}") from error
    try:
        attributes = msgspec.json.decode(extra[ATTRIBUTES], type=Attributes) if extra[ATTRIBUTES] else None
    except msgspec.DecodeError as error:
        raise ArtifactUnreadable(f"{path}!{ATTRIBUTES}: not a list of item attributes: {error}") from error
    if attributes is not None and len(attributes.of) != len(item_ids):
        raise ManifestMismatch(
            f"{path}: {ATTRIBUTES} inside has {len(attributes.of)} items, the catalogue has {len(item_ids)}"
        )
    return program, manifest, item_ids, attributes


def _checked(path: Path, sha256: str) -> io.BytesIO:
    """The bytes whose digest was compared: the file may be replaced meanwhile."""
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DigestMismatch(f"{path} has sha256 {found}, expected {sha256}: it is another file, and was not loaded")
    return io.BytesIO(data)


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a version by name, the items of its rows, and their attributes if it has any."""

    weights: dict[str, Tensor]
    item_ids: tuple[ItemId, ...]
    attributes: Attributes | None


def load_weights(path: Path, sha256: str | None = None) -> Weights:
    """The weights of an artifact, for a training that starts from it. Takes and raises what `load` does."""
    program, manifest, item_ids, attributes = _read(path, sha256)
    _check(path, program, manifest, item_ids)
    return Weights(dict(program.state_dict()), item_ids, attributes)


def weights_sha256(network: Any) -> str:
    """One hash over the names, shapes and bytes of all weights. A network, its script and its file have the same."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def warm_up(program: Program) -> None:
    """Call every method a few times: the first calls compile it, which takes about a hundred times as long as a
    call.
    """
    spec = program.spec()
    known = torch.ones_like(program.initial_memory(1))
    with torch.inference_mode():
        for _ in range(3):
            for memory in (program.initial_memory(1), known, torch.cat([program.initial_memory(1), known])):
                B = memory.size(0)
                for n in (spec["segment_length"], max(1, spec["segment_length"] // 2)):
                    items = torch.ones(B, n, dtype=torch.int64)
                    times, now = (items, items[:, 0]) if spec["uses_time"] else (None, None)
                    _call_all(program, memory, items, times, now)


def _call_all(program: Program, memory: Tensor, items: Tensor, times: Tensor | None, now: Tensor | None) -> None:
    B, n = items.shape
    lengths = torch.full((B,), n)
    _, hidden = program.update(memory, items, lengths, times)
    program.rank(hidden, 10, None)
    program.rank(hidden, 10, items)
    program.recommend(memory, items, lengths, 10, times, now)
    program.recommend(memory, items, lengths // 2, 10, times, now)


def _check(path: Path, program: Program, manifest: Manifest, item_ids: Sequence[ItemId]) -> None:
    found = weights_sha256(program)
    if found != manifest.weights_sha256:
        raise ManifestMismatch(
            f"{path}: the weights have sha256 {found}, the manifest inside says {manifest.weights_sha256}"
        )
    spec = program.spec()
    for name, stated in (
        ("n_items", manifest.n_items),
        ("segment_length", manifest.segment_length),
        ("state_floats", manifest.state_floats),
    ):
        if spec[name] != stated:
            raise ManifestMismatch(f"{path}: the program has {name} {spec[name]}, the manifest inside says {stated}")
    if len(item_ids) != manifest.n_items:
        raise ManifestMismatch(
            f"{path}: the catalogue has {len(item_ids)} items, the manifest inside says {manifest.n_items}"
        )
    beside = path.with_name(MANIFEST)
    if beside.is_file() and manifests.decode(beside.read_bytes(), str(beside)) != manifest:
        raise ManifestMismatch(
            f"{beside} differs from the manifest inside {path.name}: one of the two files was replaced"
        )
