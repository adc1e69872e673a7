"""A version that has learned nothing: for tests of what is around the lists, not of their quality."""

import os
from collections.abc import Sequence
from importlib import metadata
from typing import Final

import torch

from model.ids import Id
from model.networks import kinds
from model.networks.config import NetworkConfig
from model.networks.network import initialise
from model.version import artifact
from model.version.manifest import Manifest, memory_format
from model.version.registry import Registry

KIND: Final = "rec2pm-o"
SEGMENT_LENGTH: Final = 5


def untrained(
    models: str | os.PathLike[str],
    items: Sequence[Id],
    *,
    name: str = "untrained",
    segment_length: int = SEGMENT_LENGTH,
    seed: int = 0,
) -> str:
    """Add a version to a registry whose lists are arbitrary, and the same on every machine with the same torch.

    It is a whole Rec2PM-O of 2 layers. It folds every `segment_length` interactions of a user, which is less than what
    one would train, so that tests come to a fold. Another `seed` gives another memory format.

    Args:
        models: the registry: a folder or a URL. It is made if needed.
        items: the catalogue, each id once.

    Returns:
        NAME@VERSION of it.
    """
    config = NetworkConfig.of_table(
        {"kind": KIND, "n_items": len(items), "segment_length": segment_length, "d": 16, "layers": 2, "heads": 2}
    )
    network = kinds.build(config)
    initialise(network, torch.Generator().manual_seed(seed))
    serving = kinds.serving(network.eval(), torch.linspace(1, 0, len(items) + 1))
    sha256, spec = artifact.weights_sha256(serving), serving.spec()
    manifest = Manifest(
        name=name,
        version="",
        kind=KIND,
        memory_format=memory_format(KIND, serving.initial_memory(1).shape[1:], sha256),
        segment_length=segment_length,
        state_floats=spec["state_floats"],
        n_items=len(items),
        config=config.table(),
        training=None,
        metrics=None,
        weights_sha256=sha256,
        program_version=metadata.version("rec2pm"),
    )
    return Registry(os.fspath(models)).add(serving, manifest, list(items)).reference
