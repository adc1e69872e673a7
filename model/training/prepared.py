"""A log and a recipe, made ready to learn from: the encoded log and the network, or why they do not fit.

If they do not fit, fields of the recipe are changed until they do, as long as the log allows it. So an advice is not
a guess: the log has been prepared with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
import torch

from model.errors import RecipeInvalid, TrainingImpossible
from model.networks import kinds
from model.networks.config import NetworkConfig
from model.networks.network import Network
from model.networks.serving import Ranker
from model.training import dataset, kept_format, recipe, validation
from model.training.checkpoint import TrainingFolder
from model.training.dataset import Dataset
from model.training.encoded_log import PIECE
from model.training.recipe import Recipe
from model.training.validation import Targets
from model.version import artifact
from model.version.registry import ModelVersion

TRIES: Final = 8
"""Other recipes that are tried on a log that cannot be learned from. Each reads the log again."""

WITHOUT_FOLDS: Final = "trunc"
"""The kind that is advised where nobody has a segment: it learns from histories of any length."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A network without initial values, and the dataset that it can learn from, with its validation targets."""

    data: Dataset
    config: NetworkConfig
    network: Network
    targets: Targets


def prepare(
    log: pl.LazyFrame,
    wanted: Recipe,
    folder: TrainingFolder,
    *,
    start_from: ModelVersion | None,
    attribute_column: str | None,
    keep_format: bool = False,
) -> Prepared:
    """Encode a log and build the network of a recipe.

    Args:
        log, start_from, attribute_column, keep_format: as for `model.training.train.train`.
        folder: where the encoded log stays.

    Raises:
        TrainingImpossible: nothing can be learned. The message ends with settings that make it possible, if there are
            any.
    """
    try:
        return _prepared(log, wanted, folder, start_from, attribute_column, keep_format=keep_format)
    except TrainingImpossible as error:
        tries = iter(range(TRIES))

        def found(changes: Mapping[str, Any], refused: TrainingImpossible) -> Mapping[str, Any] | None:
            """Changes that make training possible: the first remedies that lead there, one after another."""
            for remedy in refused.remedies:
                more = {**changes, **remedy}
                if more == changes:
                    continue
                if next(tries, None) is None:
                    return None
                try:
                    changed = recipe.changed(wanted, _settings(more))
                    _prepared(log, changed, folder, start_from, attribute_column, keep_format=keep_format)
                except RecipeInvalid:
                    continue
                except TrainingImpossible as next_refused:
                    if (deeper := found(more, next_refused)) is not None:
                        return deeper
                else:
                    return more
            return None

        works = found({}, error)
        if works is None:
            raise TrainingImpossible(f"{error}. No other recipe that was tried helps: train on a larger log") from error
        words = " ".join(f"--set {setting}" for setting in _settings(works))
        if "kind" in works:
            words += f", and without fields that only {wanted.config(n_items=1).kind} has"
        raise TrainingImpossible(f"{error}. This log can be trained on with {words}") from error


def _settings(changes: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in changes.items()]


def _prepared(
    log: pl.LazyFrame,
    wanted: Recipe,
    folder: TrainingFolder,
    start_from: ModelVersion | None,
    attribute_column: str | None,
    *,
    keep_format: bool,
) -> Prepared:
    options = wanted.training
    earlier = None if start_from is None else artifact.load_weights(start_from.uri, start_from.sha256)
    data = dataset.load(
        log,
        split=options.split,
        until_share=options.until_share,
        validation_share=options.validation_share,
        min_item_count=options.min_item_count,
        known=() if earlier is None else earlier.item_ids,
        keep_rows=keep_format,
        known_attributes=None if earlier is None else earlier.attributes,
        with_times=wanted.config(n_items=1).options.uses_time,
        folder=folder.fresh_data(),
    )
    if data.attributes is not None and not data.attributes.values:
        raise TrainingImpossible(f"column {attribute_column!r} has no value for any item of the training part")
    config = wanted.config(len(data.item_ids), 0 if data.attributes is None else len(data.attributes.values))
    network = kinds.build(config, data.attribute_of())
    ranker = _ranker(data, network)
    if keep_format and start_from is not None:
        kept_format.check_possible(ranker, config.kind, start_from)
    _check(data, config)
    rng = np.random.default_rng(options.seed)
    targets = validation.choose(data, rng, options.validation_targets, config.shape.segment_length)
    if len(targets.user) == 0:
        raise TrainingImpossible(
            "no user of the validation part has a history to predict from",
            remedies=(*({"validation_share": share} for share in (0.2, 0.35, 0.5)), {"split": "last-out"}),
        )
    return Prepared(data, config, network, targets)


def _ranker(data: Dataset, network: Network) -> Ranker:
    try:
        return kinds.serving(network, torch.from_numpy(data.popularity))
    except ValueError as error:
        raise TrainingImpossible(str(error)) from error


def _check(data: Dataset, config: NetworkConfig) -> None:
    """Refuse a log that this network cannot learn from, before any time is spent on it."""
    L, longest = config.shape.segment_length, int(data.trained.max())
    if longest < 2:
        raise TrainingImpossible("no user has two interactions before validation, so there is no next item to learn")
    if config.folds_kept and longest <= L:
        median = int(np.median(data.trained[data.trained > 0]))
        raise TrainingImpossible(
            f"{config.kind} learns from folds, and nothing would ever be folded: no user has more than {L} interactions "
            f"before validation (the longest history has {longest}, half of the users have {median} or more)",
            remedies=(
                {"segment_length": max(2, min(longest - 1, median // 2))},
                {"kind": WITHOUT_FOLDS},
            ),
        )
    if not _has_a_next_item(data):
        raise TrainingImpossible(
            "no item of the catalogue comes after another interaction of a user, so there is no next item to learn",
            remedies=({"min_item_count": 1},),
        )


def _has_a_next_item(data: Dataset) -> bool:
    """Whether any interaction of the training part, but the first of its user, is with an item of the catalogue."""
    last = data.start[:-1] + data.trained
    for at in range(0, len(data.rows), PIECE):
        known = np.flatnonzero(data.rows[at : at + PIECE] != data.oov_row) + at
        owner = np.searchsorted(data.start, known, side="right") - 1
        if ((known > data.start[owner]) & (known < last[owner])).any():
            return True
    return False
