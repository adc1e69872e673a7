"""Versions that nothing can load, made in no time: for what looks at files alone."""

import random

from model.version import manifest as manifests
from model.version import storage
from model.version.manifest import CATALOGUE, GOLDEN, MANIFEST, PROGRAM, WEIGHTS, Manifest, Program
from model.version.registry import ModelVersion


def files(name: str, number: int, seed: int = 0) -> dict[str, bytes]:
    """The files of a version, in the order in which they are written; every seed has other bytes of the same length."""
    drawn = random.Random(f"{name}@{number} {seed}")
    made = {
        PROGRAM: drawn.randbytes(3000),
        WEIGHTS: drawn.randbytes(2000),
        CATALOGUE: b"[" + b",".join(b"%d" % drawn.randrange(1000, 10_000) for _ in range(60)) + b"]",
        GOLDEN: drawn.randbytes(500),
    }
    manifest = Manifest(
        name=name,
        version=str(number),
        kind="made",
        memory_format="made/1",
        segment_length=10,
        state_floats=0,
        n_items=60,
        config={},
        training=None,
        metrics=None,
        weights_sha256="0" * 64,
        program_version="test",
        program=Program(torch_version="0"),
        catalogue_sha256=manifests.facts(made[CATALOGUE]).sha256,
        files={file: manifests.facts(data) for file, data in made.items()},
    )
    return {**made, MANIFEST: manifests.encode(manifest)}


def put(root: str, name: str = "made", number: int = 1, seed: int = 0) -> ModelVersion:
    """A whole version of a registry."""
    version = ModelVersion(name, number, storage.join(root, name, str(number)))
    for file, data in files(name, number, seed).items():
        storage.write(storage.join(version.uri, file), data)
    return version
