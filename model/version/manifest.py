"""The manifest: what a model version is, which files it has, what it was trained on, and how well it did. It is
readable without torch.

A manifest has a schema number. A build refuses a schema that it does not know. It ignores fields that it does not know,
so a newer build may add some.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from model.errors import ManifestUnknown

SCHEMA: Final = 2

MANIFEST: Final = "manifest.json"
PROGRAM: Final = "model.pt"
WEIGHTS: Final = "weights.safetensors"
CATALOGUE: Final = "catalogue.json"
GOLDEN: Final = "golden.json"
ATTRIBUTES: Final = "attributes.json"
"""In versions whose items have attributes. Training needs them to start from such a version; serving does not."""

_FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MUST_HAVE: Final = (PROGRAM, WEIGHTS, CATALOGUE, GOLDEN)

LAST_OUT = "last out"
"""`Training.split` begins with this if the last interaction of every user was kept for a test, however early it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Where the weights come from.

    `log` is the last part of the path of the log. Times are epoch ms, of the interactions that were trained on.
    `samples` counts training windows over all epochs. `split` says in words what was held out. `ended` is the field of
    the recipe that ended training: `patience`, `max_epochs` or `max_seconds`; None if an older build trained.
    """

    log: str
    rows: int
    users: int
    items: int
    from_ms: int
    until_ms: int
    split: str
    seed: int
    epochs: int
    best_epoch: int
    wall_s: float
    samples: int
    ended: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Next-item metrics on the validation targets, predicted as a worker would, and those of the popularity list.

    `popularity_ndcg_at_10` is None if an older build trained.
    """

    targets: int
    hr_at_10: float
    ndcg_at_10: float
    popularity_hr_at_10: float
    popularity_ndcg_at_10: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What `model.pt` is: its kind, and the torch that wrote it."""

    kind: str = "torchscript"
    torch_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """A file of a version: its size in bytes, and its SHA-256 in hexadecimal."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """Who is no longer in the log that was trained on: how many users, and up to which offset of each partition of the
    interactions topic null values were obeyed (partition as text → the offset after the last one).
    """

    users: int
    until: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFormat:
    """How well this version reads memories that `of` (NAME@VERSION) wrote: NDCG@10 of the same held-out users with
    memories of its own, and with those.
    """

    of: str
    users: int
    ndcg_at_10_own: float
    ndcg_at_10_kept: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One model version.

    `version` is a positive integer as text. Versions with the same `memory_format` read each other's memories. `config`
    is complete: nothing in it depends on a default. `weights_sha256` is over the names, shapes and bytes of all
    weights. `files` are all files of the version but the manifest itself, by name; the copy of the manifest inside
    model.pt has none. `Registry.add` fills in `version`, `program`, `catalogue_sha256` and `files`.
    """

    schema: int = SCHEMA
    name: str
    version: str
    kind: str
    memory_format: str
    segment_length: int
    state_floats: int
    n_items: int
    config: dict[str, Any]
    training: Training | None
    metrics: Metrics | None
    weights_sha256: str
    program_version: str
    program: Program = Program()
    catalogue_sha256: str = ""
    forgotten: Forgotten | None = None
    kept_format: KeptFormat | None = None
    files: dict[str, FileFacts] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"


def memory_format(kind: str, shape: Sequence[int], weights_sha256: str) -> str:
    """An id for what a preference memory means. It has the hash of the weights, because only the weights that wrote a
    memory can read it.
    """
    return f"{kind}/{'x'.join(map(str, shape))}/{weights_sha256[:12]}"


def facts(data: bytes) -> FileFacts:
    return FileFacts(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(data: bytes | str, where: str) -> Manifest:
    """The manifest in `data`.

    Raises:
        ManifestUnknown: it is malformed or has another schema. The message begins with `where`.
    """
    try:
        schema = msgspec.json.decode(data, type=_Schema).schema
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManifestUnknown(f"{where}: not a manifest: {error}") from error
    if schema != SCHEMA:
        why = "A newer rec2pm may have written it" if schema > SCHEMA else "An older rec2pm wrote it: train it again"
        raise ManifestUnknown(f"{where}: manifest schema {schema}, this build reads {SCHEMA}. {why}")
    try:
        msgspec.json.decode(data, type=_FilledIn)
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise ManifestUnknown(f"{where}: malformed manifest of schema {schema}: {error}") from error
    if strange := [name for name in manifest.files if _FILE_NAME.fullmatch(name) is None]:
        # A name with a slash would lead out of the folder.
        raise ManifestUnknown(f"{where}: malformed manifest of schema {schema}: {strange[0]!r} cannot be a file's name")
    return manifest


def lacking(files: Mapping[str, int], manifest: Manifest) -> str | None:
    """Why these files (name → size in bytes) are not all that a manifest names; None if they are."""
    for name in _MUST_HAVE:
        if name not in manifest.files:
            return f"{MANIFEST} does not name {name}"
    for name, facts in manifest.files.items():
        if name not in files:
            return f"it has no {name}"
        if files[name] != facts.bytes:
            return f"{name} has {files[name]} bytes, {MANIFEST} says {facts.bytes}"
    return None


class _Schema(msgspec.Struct):
    schema: int


class _FilledIn(msgspec.Struct):
    """What only a manifest that is not written yet may lack."""

    program: Program
    catalogue_sha256: str
    files: dict[str, FileFacts]
