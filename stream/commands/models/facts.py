"""A version in numbers and words: what `rec2pm models list`, `show` and `diff` say."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import msgspec

from model.ids import Id
from model.version.checked_files import CheckedFiles
from model.version.manifest import CATALOGUE, WEIGHTS, Manifest
from model.version.registry import ModelVersion

FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Facts:
    """One version: its manifest, where it is, and the SHA-256 of its manifest.json."""

    manifest: Manifest
    uri: str
    sha256: str
    files: CheckedFiles

    @property
    def reference(self) -> str:
        return self.manifest.reference

    @property
    def bytes(self) -> int:
        """Of all files that the manifest names."""
        return sum(each.bytes for each in self.manifest.files.values())

    def catalogue(self) -> list[Id]:
        return msgspec.json.decode(self.files.read(CATALOGUE), type=list[Id])

    def parameters(self) -> int:
        """How many numbers the weights have, as the head of the safetensors file says: its length in 8 bytes, then a
        map of names to shapes.
        """
        data = self.files.read(WEIGHTS)
        head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return sum(prod(each["shape"]) for name, each in head.items() if name != "__metadata__")


def facts(version: ModelVersion) -> Facts:
    """Raises ModelError: the version cannot be read."""
    files = version.files()
    return Facts(files.manifest, version.uri, files.sha256, files)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Fields of a configuration by their path: `layers` → 4, `optimizer.lr` → 0.001."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def share(value: float) -> str:
    """A metric between 0 and 1, four digits: .2135."""
    return f"{value:.4f}".removeprefix("0")
