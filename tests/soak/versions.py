"""Three trained versions: two that read each other's memories, as far as they say so, and one of another format."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import torch

from model.networks import kinds
from model.training import recipe
from model.version import artifact
from model.version.registry import ModelVersion, Registry
from tests.processes import environ, rec2pm

NAME = "soak"
SEGMENT_LENGTH = 20


def make(log: pl.DataFrame, models: Path, seconds: float) -> None:
    """Train two models on the log, each for so many seconds, and add the second once more under the memory format of
    the first: its lists are worth nothing, and its arithmetic is as good as any.
    """
    models.mkdir(parents=True)
    path = models.parent / "training.parquet"
    log.write_parquet(path)
    for seed in (0, 1):
        options = {"segment_length": SEGMENT_LENGTH, "max_seconds": seconds, "seed": seed}
        sets = [word for name, value in options.items() for word in ("--set", f"{name}={value}")]
        done = rec2pm("train", str(path), "--out", str(models), "--name", NAME, *sets, env=environ("", NAME))
        if done.returncode:
            raise RuntimeError(done.stderr)
    registry = Registry(models)
    first, other = (registry.resolve(f"{NAME}@{number}") for number in (1, 2))
    manifest = other.manifest()
    loaded = artifact.load_weights(other.uri)
    network = kinds.build(recipe.of_manifest(manifest.config, other.reference).config(manifest.n_items))
    serving = kinds.serving(network, torch.zeros(manifest.n_items + 1))
    serving.load_state_dict(loaded.weights)
    registry.add(serving, replace(manifest, memory_format=first.manifest().memory_format), loaded.item_ids)


def found(models: Path) -> tuple[ModelVersion, ModelVersion, ModelVersion]:
    """The first one, one of the same memory format, and one of another."""
    registry = Registry(models)
    first, other, same = (registry.resolve(f"{NAME}@{number}") for number in (1, 2, 3))
    return first, same, other


def phases(
    first: ModelVersion, same: ModelVersion, other: ModelVersion, swaps: int
) -> tuple[list[ModelVersion], list[ModelVersion]]:
    """What is promoted: in the first phase two versions of one memory format in turn, in the second two of different
    ones.
    """
    half = swaps // 2
    within = [(same, first)[number % 2] for number in range(half)]
    between = [(other, first)[number % 2] for number in range(swaps - half)]
    return within, between
