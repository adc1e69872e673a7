"""Small networks with weights large enough for every mask to matter, and their artifacts as the worker would load
them.
"""

from pathlib import Path
from typing import Any

import torch

from model.networks import kinds
from model.networks.config import KINDS, NetworkConfig, fields_of
from model.networks.network import Network, initialise
from model.networks.serving import Ranker
from model.version import artifact
from model.version.manifest import Manifest, memory_format
from model.version.registry import ModelVersion, Registry
from model.version.torchscript import Program

TABLE: dict[str, Any] = {
    "n_items": 60,
    "segment_length": 12,
    "d": 16,
    "layers": 3,
    "heads": 2,
    "slots": 3,
    "dropout": 0.3,
}


def table(kind: str = "rec2pm-o", **fields: Any) -> NetworkConfig:
    """A small network: `TABLE` as far as the kind has its fields, and other fields."""
    own = {name: value for name, value in TABLE.items() if name in fields_of(kind)}
    return NetworkConfig.of_table({"kind": kind, **own, **fields})


def changed(config: NetworkConfig, **fields: Any) -> NetworkConfig:
    """The same network with other values of some fields."""
    return NetworkConfig.of_table({**config.table(), **fields})


CONFIG = table()
L, V = CONFIG.shape.segment_length, CONFIG.shape.n_items
IDS = [f"item-{row}" for row in range(1, V + 1)]

CASES = [
    *((kind, backbone) for kind in KINDS if kind != "holomambarec" for backbone in ("sasrec", "hstu")),
    ("rec2pm-o", "overlap"),
    ("tok-serial-a", "overlap"),
    ("rec2pm-a", "write_from_memory"),
    ("full", "meta"),
    ("rec2pm-o", "meta"),
    ("holomambarec", "none"),
    *((kind, bias) for kind in ("full", "trunc") for bias in ("pos", "pos_time")),
]
"""Every kind, on the backbones that it is compared on, and with what changes a fold; `pos` and `pos_time` are HSTU with
a relative bias.
"""


def config(kind: str, backbone: str) -> NetworkConfig:
    if backbone == "overlap":
        return table(kind, overlap=5)
    if backbone == "write_from_memory":
        return table(kind, write_from_memory=True)
    if kind == "holomambarec":
        return table(kind, attributes=5)
    if backbone in ("pos", "pos_time"):
        return table(kind, backbone="hstu", rel_bias=backbone)
    return table(kind, backbone=backbone)


def network(seed: int = 0, config: NetworkConfig = CONFIG) -> Network:
    attributes = config.table().get("attributes", 0)
    attribute_of = torch.tensor([0, *(row % (attributes + 1) for row in range(1, config.shape.n_items + 1)), 0])
    made = kinds.build(config, attribute_of)
    generator = torch.Generator().manual_seed(seed)
    initialise(made, generator)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.rpartition(".")[2] not in getattr(made, "preset", ()):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
        for module in made.modules():
            if isinstance(module, torch.nn.Embedding):
                module.weight[0].zero_()
    return made.eval()


def popularity(config: NetworkConfig = CONFIG) -> torch.Tensor:
    """Two items at a time are equally popular, so that ties are part of every list."""
    return 1.0 / (1.0 + torch.arange(config.shape.n_items + 1) // 2)


def serving(seed: int = 0, config: NetworkConfig = CONFIG) -> Ranker:
    return kinds.serving(network(seed, config), popularity(config))


def manifest(serving: Ranker, name: str = "tiny", kind: str = "rec2pm-o") -> Manifest:
    sha256, spec = artifact.weights_sha256(serving), serving.spec()
    return Manifest(
        name=name,
        version="",
        kind=kind,
        memory_format=memory_format(kind, serving.initial_memory(1).shape[1:], sha256),
        segment_length=spec["segment_length"],
        state_floats=spec["state_floats"],
        n_items=spec["n_items"],
        config={},
        training=None,
        metrics=None,
        weights_sha256=sha256,
        program_version="test",
    )


def add(root: Path, name: str = "tiny", seed: int = 0, config: NetworkConfig = CONFIG) -> ModelVersion:
    made = serving(seed, config)
    return Registry(root).add(made, manifest(made, name, config.kind), IDS)


def rows(users: int, n: int, seed: int = 0) -> torch.Tensor:
    """(users, n) int64 item rows, the one for unknown items among them."""
    return torch.randint(1, V + 2, (users, n), generator=torch.Generator().manual_seed(seed))


def scores(
    program: Program,
    memory: torch.Tensor,
    items: torch.Tensor,
    lengths: torch.Tensor,
    times: torch.Tensor | None = None,
    query_time: torch.Tensor | None = None,
) -> torch.Tensor:
    """What `recommend` gives every item of the catalogue, in the order of their rows: (B, V)."""
    arguments = (times, query_time) if times is not None or query_time is not None else ()
    rows, found = program.recommend(memory, items, lengths, V, *arguments)
    ordered: torch.Tensor = torch.empty_like(found).scatter(1, rows - 1, found)
    return ordered


def cosines(network: Network, hidden: torch.Tensor) -> torch.Tensor:
    """The scores of all items after hidden states (B, d) of a network in training: (B, V)."""
    items = network.directions(torch.arange(1, V + 1))
    return torch.nn.functional.normalize(hidden, dim=1) @ items.t()


def times_of(rows: torch.Tensor) -> torch.Tensor:
    """A time for each item row, epoch ms, the same wherever the row stands; a minute to seven weeks apart, in no
    order.
    """
    return 1_700_000_000_123 + (rows * 7_919 % 61) * 70_000_001


def window_times(rows: torch.Tensor) -> torch.Tensor:
    """The times of windows of item rows (B, n), and of what follows: (B, n + 1)."""
    return times_of(torch.cat([rows, rows[:, :1]], dim=1))
