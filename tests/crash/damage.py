"""Damage to the files of a store that nobody has open."""

import random
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class Disk(Protocol):
    """See `tests.crash.disk.SmallDisk`."""

    def fill(self) -> None: ...
    def free(self) -> None: ...
    def read_only(self) -> None: ...
    def writable(self) -> None: ...


class Kind(StrEnum):
    """What is done to which file of RocksDB's."""

    SST_FLIPPED = "SST, bits flipped"
    SST_TRUNCATED = "SST, truncated"
    SST_GONE = "SST, deleted"
    MANIFEST_FLIPPED = "MANIFEST, bits flipped"
    MANIFEST_TRUNCATED = "MANIFEST, truncated"
    CURRENT_FLIPPED = "CURRENT, bits flipped"
    CURRENT_TRUNCATED = "CURRENT, truncated"


_FILES = {"SST": "*.sst", "MANIFEST": "MANIFEST-*", "CURRENT": "CURRENT"}


def apply(kind: Kind, folder: Path, chosen: random.Random) -> bool:
    """Damage one file of this kind in every store below a folder; False when there is none."""
    name, _, how = kind.partition(", ")
    hit = False
    for store in sorted(path.parent for path in folder.rglob("CURRENT")):
        files = [path for path in sorted(store.glob(_FILES[name])) if path.stat().st_size]
        if files:
            _damage(chosen.choice(files), how, chosen)
            hit = True
    return hit


def _damage(path: Path, how: str, chosen: random.Random) -> None:
    content = bytearray(path.read_bytes())
    match how:
        case "deleted":
            path.unlink()
        case "truncated":
            path.write_bytes(content[: chosen.randrange(len(content))])
        case _:
            for _ in range(8):
                content[chosen.randrange(len(content))] ^= 1 << chosen.randrange(8)
            path.write_bytes(content)
