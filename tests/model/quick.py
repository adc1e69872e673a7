"""A log and a recipe that are learned from in a second."""

import itertools
from pathlib import Path
from typing import Any

import polars as pl

from model.networks.config import ALL_FIELDS, DEFAULT_KIND, fields_of
from model.synthetic import SyntheticLog, generate
from model.training import recipe as recipes
from model.training.recipe import Recipe
from model.training.train import train
from model.version.registry import ModelVersion, Registry

LOG = generate(SyntheticLog(users=80, items=60, genres=6, interactions_median=40)).interactions
SMALL = ("segment_length=10", "segments=3", "d=16", "layers=1", "heads=2", "slots=2", "max_epochs=2", "negatives=32")


def small(kind: str) -> list[str]:
    """`SMALL` without the fields that this kind does not have."""
    foreign = {*ALL_FIELDS} - {*fields_of(kind)}
    return [setting for setting in SMALL if setting.partition("=")[0] not in foreign]


def recipe(**changed: object) -> Recipe:
    """The default recipe with small numbers and with other fields `changed`."""
    settings = [*small(str(changed.get("kind", DEFAULT_KIND))), *(f"{key}={value}" for key, value in changed.items())]
    return recipes.changed(recipes.load(recipes.DEFAULT), settings)


def run(
    root: Path,
    log: pl.DataFrame = LOG,
    *,
    clock_step: float = 0.001,
    how: dict[str, Any] | None = None,
    **changed: object,
) -> ModelVersion:
    """Train with fields of the recipe `changed`, and arguments of `train` in `how`."""
    ticks = itertools.count()
    usual: dict[str, Any] = {"name": "small", "log_name": "logs/small.csv", "program_version": "0"}
    usual["clock"] = lambda: next(ticks) * clock_step
    return train(log.lazy(), Registry(root), recipe(**changed), **(usual | (how or {})))
