"""A small network with weights large enough for every mask to matter, and its artifact as the worker would load it."""

from pathlib import Path

import torch

from model import artifact
from model.manifest import Manifest, memory_format
from model.network import NetworkConfig, Rec2PM, initialise
from model.registry import ModelVersion, Registry
from model.serving import Serving

CONFIG = NetworkConfig(n_items=60, segment_length=12, d=16, layers=3, heads=2, slots=3, dropout=0.3)
IDS = [f"item-{row}" for row in range(1, CONFIG.n_items + 1)]


def network(seed: int = 0, config: NetworkConfig = CONFIG) -> Rec2PM:
    made = Rec2PM(config)
    generator = torch.Generator().manual_seed(seed)
    initialise(made, generator)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name != "read_gain":
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
        made.item.weight[0].zero_()
    return made.eval()


def popularity(config: NetworkConfig = CONFIG) -> torch.Tensor:
    """Two items at a time are equally popular, so that ties are part of every list."""
    return 1.0 / (1.0 + torch.arange(config.n_items + 1) // 2)


def manifest(serving: Serving, name: str = "tiny") -> Manifest:
    sha256 = artifact.weights_sha256(serving)
    return Manifest(
        name=name,
        version="",
        kind="rec2pm-o",
        memory_format=memory_format("rec2pm-o", serving.slots, serving.d, sha256),
        segment_length=serving.segment_length,
        state_floats=serving.slots * serving.d,
        n_items=serving.n_items,
        config={},
        training=None,
        metrics=None,
        weights_sha256=sha256,
        program_version="test",
        torch_version=str(torch.__version__),
    )


def add(root: Path, name: str = "tiny", seed: int = 0) -> ModelVersion:
    serving = Serving(network(seed), popularity())
    return Registry(root).add(serving, manifest(serving, name), IDS)


def rows(users: int, n: int, seed: int = 0) -> torch.Tensor:
    """(users, n) int64 item rows, the one for unknown items among them."""
    return torch.randint(1, CONFIG.n_items + 2, (users, n), generator=torch.Generator().manual_seed(seed))
