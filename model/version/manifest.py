"""The manifest: what a model version is, what it was trained on, and how well it did. It is readable without torch.

A manifest has a schema number. A build refuses a schema that it does not know. It ignores fields that it does not know,
so a newer build may add some.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from model.errors import ManifestUnknown

SCHEMA = 1

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
class Manifest:
    """One model version.

    `version` is a positive integer as text. Versions with the same `memory_format` read each other's memories. `config`
    is complete: nothing in it depends on a default. `weights_sha256` is over the names, shapes and bytes of all weights
    in the artifact.
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
    """An id for what a preference memory means. It has the hash of the weights, because only the weights that wrote a
    memory can read it.
    """
    return f"{kind}/{'x'.join(map(str, shape))}/{weights_sha256[:12]}"


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(data: bytes, where: str) -> Manifest:
    """The manifest in `data`.

    Raises:
        ManifestUnknown: it is malformed or has another schema. The message begins with `where`.
    """
    try:
        schema = msgspec.json.decode(data, type=_Schema).schema
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManifestUnknown(f"{where}: not a manifest: {error}") from error
    if schema != SCHEMA:
        raise ManifestUnknown(
            f"{where}: manifest schema {schema}, this build reads {SCHEMA}. A newer rec2pm may have written it"
        )
    try:
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise ManifestUnknown(f"{where}: malformed manifest of schema {schema}: {error}") from error


class _Schema(msgspec.Struct):
    schema: int
