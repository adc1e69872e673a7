"""Recipes: what to train and how, in small TOML files.

A recipe has a description, a table [network] with the fields of its kind (model/networks/config.py), and a table
[training] with fields of `TrainingOptions`. Fields that it leaves out have their defaults. The recipes of this program
are in model/training/recipes/. A path names one of your own.
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from model.errors import RecipeInvalid
from model.networks.config import ALL_FIELDS, KINDS, NetworkConfig, without_foreign_fields
from model.training.dataset import USUAL_VALIDATION_SHARE
from model.training.encoded_log import Split
from model.training.windows import NegativeMode, Placed

DEFAULT = "rec2pm-o-sasrec-small"

OF_THE_LOG = ("n_items", "attributes")
"""Fields of [network] that the log decides, so that no recipe has them."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """Everything about training but the network: the table [training].

    Data: `split` and its shares are those of `model.training.dataset.load`. An item needs `min_item_count` interactions
    in the training part to get a row. Sampling: see `model.training.windows`. Optimiser: AdamW; its learning rate rises
    to `lr` over `warm_up_steps` and stays; gradients are clipped to the norm `clip`. Training ends after `max_epochs`,
    after `max_seconds` of wall time (validation included), or after `patience` epochs without a better NDCG@10 on
    `validation_targets` interactions of the validation part. A checkpoint is written after every epoch and every
    `checkpoint_minutes`.
    """

    split: Split = "time"
    until_share: float = 1.0
    validation_share: float = USUAL_VALIDATION_SHARE
    validation_targets: int = 2_000
    min_item_count: int = 5
    windows: Placed = "anywhere"
    batch: int = 32
    oov_share: float = 0.01
    negatives: int = 512
    negative_mode: NegativeMode = "shared"
    lr: float = 1e-3
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    warm_up_steps: int = 100
    max_epochs: int = 100
    max_seconds: float | None = None
    patience: int = 10
    checkpoint_minutes: float = 5.0
    # 16-bit floats with a loss scale are missing: the scale would have to be resumed too.
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("max_epochs", "patience", "batch", "negatives", "min_item_count", "validation_targets")
        wrong = [f"{name} is {getattr(self, name)}, must be at least 1" for name in counts if getattr(self, name) < 1]
        positive = ("lr", "clip", "max_seconds", "checkpoint_minutes")
        wrong += [
            f"{name} is {value}, must be positive"
            for name in positive
            if (value := getattr(self, name)) is not None and not value > 0
        ]
        wrong += [
            f"{name} is {getattr(self, name)}, must not be negative"
            for name in ("weight_decay", "warm_up_steps", "seed")
            if getattr(self, name) < 0
        ]
        if not 0.0 < self.until_share <= 1.0:
            wrong.append(f"until_share is {self.until_share}, must be in (0, 1]")
        if not 0.0 < self.validation_share < 1.0:
            wrong.append(f"validation_share is {self.validation_share}, must be in (0, 1)")
        if not 0.0 <= self.oov_share < 1.0:
            wrong.append(f"oov_share is {self.oov_share}, must be in [0, 1)")
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            wrong.append(f"betas is {list(self.betas)}, both must be in [0, 1)")
        if wrong:
            raise ValueError("; ".join(wrong))


@dataclass(frozen=True, slots=True)
class Recipe:
    """`network` is the table [network], without the fields that the log decides."""

    name: str
    description: str
    network: Mapping[str, Any]
    training: TrainingOptions = field(default_factory=TrainingOptions)

    def config(self, n_items: int, attributes: int = 0) -> NetworkConfig:
        """The network for so many items, with so many attribute values.

        Raises:
            RecipeInvalid: a field of [network] is unknown or cannot be.
        """
        kind = self.network.get("kind")
        if kind is not None and kind not in KINDS:
            raise RecipeInvalid(
                f"recipe {self.name}: [network] kind is {kind!r}{_meant(str(kind), KINDS)}. The kinds are {', '.join(KINDS)}"
            )
        table = {**self.network, "n_items": n_items}
        if attributes:
            table["attributes"] = attributes
        try:
            return NetworkConfig.of_table(table)
        except ValueError as error:
            raise RecipeInvalid(f"recipe {self.name}: [network]: {error}") from error

    def resolved(self, config: NetworkConfig) -> dict[str, Any]:
        """The whole recipe, defaults included, as plain values for the manifest."""
        return {
            "recipe": {"name": self.name, "description": self.description},
            "network": config.table(),
            "training": asdict(self.training),
        }


def names() -> list[str]:
    """The recipes that come with this program."""
    return sorted(file.name.removesuffix(".toml") for file in _shipped().iterdir() if file.name.endswith(".toml"))


def descriptions() -> dict[str, str]:
    """The descriptions of the recipes of this program, by name."""
    return {name: load(name).description for name in names()}


def load(name: str) -> Recipe:
    """A recipe that comes with this program, by its name, or a file of your own: a path that ends in .toml.

    Raises:
        RecipeInvalid: there is none, it is not TOML, or fields are unknown or cannot be. The message has everything
            that is wrong.
    """
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise RecipeInvalid(f"{name}: no such file")
        return parse(path.read_text(encoding="utf-8"), path.stem, name)
    if name not in names():
        raise RecipeInvalid(
            f"no recipe {name!r}{_meant(name, names())}. `rec2pm train --list` shows all. A recipe of your own is a path that ends in .toml"
        )
    return parse((_shipped() / f"{name}.toml").read_text(encoding="utf-8"), name, f"recipe {name}")


def parse(text: str, name: str, where: str) -> Recipe:
    """The recipe in a text. Raises what `load` raises."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeInvalid(f"{where}: not TOML: {error}") from error
    strange = [
        f"unknown table or field {key!r}{_meant(key, ('description', 'network', 'training'))}"
        for key in tables
        if key not in ("description", "network", "training")
    ]
    strange += [
        f"[{key}] is {tables[key]!r}, expected a table"
        for key in ("network", "training")
        if not isinstance(tables.get(key, {}), dict)
    ]
    if strange:
        raise RecipeInvalid(f"{where}: {'; '.join(strange)}. A recipe has a description, [network] and [training]")
    return _made(name, str(tables.get("description", "")), tables.get("network", {}), tables.get("training", {}), where)


def of_manifest(config: Mapping[str, Any], reference: str) -> Recipe:
    """The recipe that a model version was trained with, from the `config` of its manifest.

    Raises:
        RecipeInvalid: the manifest has no recipe, or one that this build does not know.
    """
    if not all(isinstance(config.get(table), Mapping) for table in ("network", "training")):
        raise RecipeInvalid(f"{reference}: its manifest has no recipe. Name one with --recipe")
    network = without_foreign_fields(config["network"])
    network = {key: value for key, value in network.items() if key not in OF_THE_LOG}
    recipe = config.get("recipe", {})
    training = {key: value for key, value in config["training"].items() if value is not None}
    return _made(
        recipe.get("name", reference), recipe.get("description", ""), network, training, f"the manifest of {reference}"
    )


def changed(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe with other values of some fields. A setting is KEY=VALUE. KEY is a field of either table, or
    TABLE.FIELD. VALUE is TOML, or text without quotes.

    If a setting changes the kind, the fields of the recipe that the new kind does not have are left out.

    Raises:
        RecipeInvalid: a key is unknown or a value cannot be.
    """
    changes: dict[str, dict[str, Any]] = {"network": {}, "training": {}}
    wrong: list[str] = []
    for setting in settings:
        key, equals, value = setting.partition("=")
        key = key.strip()
        table, _, name = key.rpartition(".")
        holders = [each for each, known in FIELDS.items() if name in known and table in ("", each)]
        if not equals:
            wrong.append(f"{setting!r} is not KEY=VALUE")
        elif len(holders) != 1:
            known = [field for each in FIELDS if table in ("", each) for field in FIELDS[each]]
            wrong.append(f"unknown field {key!r}{_meant(name, known)}. The fields are {_listed(FIELDS)}")
        else:
            changes[holders[0]][name] = _value(value.strip())
    if wrong:
        raise RecipeInvalid("--set: " + "; ".join(wrong))
    network: Mapping[str, Any] = recipe.network
    if "kind" in changes["network"]:
        network = without_foreign_fields({**network, "kind": changes["network"]["kind"]})
    training = {key: value for key, value in asdict(recipe.training).items() if value is not None}
    return _made(
        recipe.name,
        recipe.description,
        {**network, **changes["network"]},
        {**training, **changes["training"]},
        f"recipe {recipe.name} with --set",
    )


def _made(name: str, description: str, network: Mapping[str, Any], training: Mapping[str, Any], where: str) -> Recipe:
    wrong = [
        f"[{table}] has no field {key!r}{_meant(key, FIELDS[table])}"
        for table, fields in (("network", network), ("training", training))
        for key in fields
        if key not in FIELDS[table]
    ]
    if wrong:
        raise RecipeInvalid(f"{where}: {'; '.join(wrong)}. The fields are {_listed(FIELDS)}")
    recipe = Recipe(name, description, dict(network), _converted(training, TrainingOptions, f"{where}: [training]"))
    recipe.config(n_items=1)
    return recipe


def _converted(table: Mapping[str, Any], to: type[T], where: str) -> T:
    try:
        return msgspec.convert(table, to)
    except msgspec.ValidationError as error:
        raise RecipeInvalid(f"{where}: {error}") from error


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {close[0]}?)" if close else ""


def _listed(fields: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"[{table}] {', '.join(names)}" for table, names in fields.items())


def _shipped() -> Any:
    return resources.files("model.training") / "recipes"


FIELDS: dict[str, list[str]] = {
    "network": [name for name in ALL_FIELDS if name not in OF_THE_LOG],
    "training": [each.name for each in dataclasses.fields(TrainingOptions)],
}
"""The fields of a recipe, by table."""
