"""The manifest: what a model version is, what it was made from and how well it did, readable without torch.

One schema number; a build reads the schemas it knows and refuses the rest. Unknown fields are ignored, so a newer build
may add some.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from model.errors import ManifestUnknown

SCHEMA = 1

LAST_OUT = "last out"
"""How `Training.split` begins when everybody's last interaction was left for a test, however early it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Where the weights come from.

    `log` is the last part of the log's path. Times are epoch ms, of the interactions trained on. `samples` counts
    training windows over all epochs; `split` says in words what was held out.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Next-item metrics on the validation targets, as the worker would have predicted them, and the popularity list's
    on the same.
    """

    targets: int
    hr_at_10: float
    ndcg_at_10: float
    popularity_hr_at_10: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One model version.

    `version` is a positive integer as text. Two versions share a `memory_format` only if the trainer made it so.
    `config` is resolved: nothing in it depends on a default. `weights_sha256` is over the names and bytes of all
    weights in the artifact.
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
    torch_version: str

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"


def memory_format(kind: str, shape: Sequence[int], weights_sha256: str) -> str:
    """What a preference memory of that shape written by these weights means, as an id: only the same weights are known
    to read it.
    """
    return f"{kind}/{'x'.join(map(str, shape))}/{weights_sha256[:12]}"


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(data: bytes, where: str) -> Manifest:
    """The manifest in `data`.

    Raises:
        ManifestUnknown: it is malformed or of another schema; `where` is named in the message.
    """
    try:
        schema = msgspec.json.decode(data, type=_Schema).schema
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManifestUnknown(f"{where}: not a manifest: {error}") from error
    if schema != SCHEMA:
        raise ManifestUnknown(
            f"{where}: manifest schema {schema}, this build reads {SCHEMA}; a newer rec2pm may have written it"
        )
    try:
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise ManifestUnknown(f"{where}: malformed manifest of schema {schema}: {error}") from error


class _Schema(msgspec.Struct):
    schema: int
