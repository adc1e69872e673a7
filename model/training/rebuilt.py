"""A version's network again, without its program: from weights.safetensors, manifest.json and attributes.json.

So every version can be exported anew when TorchScript is no more, or in another format. docs/registry.md says how.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from model.errors import ManifestMismatch
from model.networks import kinds
from model.networks.config import NetworkConfig, without_foreign_fields
from model.networks.serving import Ranker
from model.version import artifact
from model.version.manifest import MANIFEST, WEIGHTS, Manifest


def rebuilt(folder: str | Path, sha256: str | None = None) -> Ranker:
    """The network of the version in a folder, or behind a URL, as it was served. Nothing of model.pt is read.

    Args:
        sha256: of the version, if it must be a certain one.

    Raises:
        ManifestMismatch: the manifest describes no network of this build, or another one than that of the weights.
        ModelError: what `model.version.artifact.load_weights` raises.
    """
    found = artifact.load_weights(folder, sha256)
    config = _config(str(folder), found.manifest)
    attribute_of = None if found.attributes is None else found.attributes.by_row()
    # What a new network draws is replaced; the caller's generator stays as it is.
    with torch.random.fork_rng(devices=[]):
        network = kinds.build(config, attribute_of)
        ranker = kinds.serving(network, torch.zeros(config.shape.n_items + 1))
    try:
        ranker.load_state_dict(found.weights)
    except RuntimeError as error:
        what = "; ".join(line.strip() for line in str(error).splitlines()[1:])[:600]
        raise ManifestMismatch(
            f"{folder}: the network that {MANIFEST} describes has other weights than {WEIGHTS}: {what}"
        ) from error
    return ranker


def _config(where: str, manifest: Manifest) -> NetworkConfig:
    table = manifest.config.get("network")
    if not isinstance(table, Mapping):
        raise ManifestMismatch(f"{where}: {MANIFEST} describes no network, so it cannot be rebuilt")
    try:
        return NetworkConfig.of_table(without_foreign_fields(table))
    except ValueError as error:
        raise ManifestMismatch(f"{where}: {MANIFEST} describes no network of this build: {error}") from error
