"""The versions of a run: some that can serve, and some that cannot."""

import hashlib
import json

import polars as pl

from model.version.registry import ModelVersion, Registry
from tests.crash import ledger, source
from tests.crash.arithmetic import Catalogue
from tests.crash.versions import LedgerVersion


def of(log: pl.DataFrame, seed: int) -> list[LedgerVersion]:
    """What is promoted in a run: two versions of a memory format, two of another, and one of a third. Those of one
    format have one catalogue: what one of them rebuilds, another may read.
    """
    catalogues = {dialect: Catalogue(source.catalogue_of(log, seed + dialect)) for dialect in (1, 2, 3)}
    return [
        LedgerVersion(f"{ledger.NAME}@{number}", catalogues[dialect], dialect, salt=1009 * number, fails=True)
        for number, dialect in enumerate((1, 1, 2, 2, 3), start=1)
    ]


def written(registry: Registry, version: LedgerVersion, segment_length: int) -> ModelVersion:
    """The version with its files, in the registry."""
    made = ledger.write(
        registry,
        version.catalogue.item_ids,
        segment_length,
        fails=version.fails,
        dialect=version.dialect,
        salt=version.salt,
    )
    if made.reference != version.reference:
        raise RuntimeError(f"{made.reference} was written, expected {version.reference}")
    return made


def bad(registry: Registry, like: LedgerVersion, segment_length: int) -> list[ModelVersion]:
    """Versions that no worker may serve: one is cut short, the other computes something else than its golden lists.

    `tests.model.bad_versions` has all kinds; these are refused within seconds.
    """
    items = like.catalogue.item_ids
    short, other = (ledger.write(registry, items, segment_length, salt=salt) for salt in (1, 2))
    assert short.folder is not None
    assert other.folder is not None
    program = short.folder / "model.pt"
    program.write_bytes(program.read_bytes()[:-100])
    third = ledger.write(registry, items, segment_length, salt=3)
    assert third.folder is not None
    golden = (third.folder / "golden.json").read_bytes()
    (other.folder / "golden.json").write_bytes(golden)
    manifest = json.loads((other.folder / "manifest.json").read_bytes())
    manifest["files"]["golden.json"] = {"bytes": len(golden), "sha256": hashlib.sha256(golden).hexdigest()}
    (other.folder / "manifest.json").write_text(json.dumps(manifest))
    return [short, other]
