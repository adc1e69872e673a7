"""An event log in, a new model version in the registry out.

The clock and the progress bar are arguments. Randomness comes from one seed: the same log, recipe, number of devices
and of threads give the same weights on a CPU, whether or not training was interrupted, unless `max_seconds` cuts it
short.
"""

import logging
from collections.abc import Callable
from importlib import util
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
import torch
from rich.progress import Progress

from model.errors import (
    RecipeInvalid,
    TrainerMissing,
    TrainingDiverged,
    TrainingImpossible,
    TrainingInterrupted,
    TrainingProcessLost,
    TrainingUnfinished,
)
from model.networks import kinds
from model.networks.config import NetworkConfig, without_foreign_fields
from model.networks.network import Network
from model.training import checkpoint, dataset, validation, warm_start
from model.training.checkpoint import Checkpoint, TrainingFolder
from model.training.dataset import Dataset
from model.training.recipe import Recipe
from model.version import artifact
from model.version.manifest import LAST_OUT, Manifest, Training, memory_format
from model.version.registry import ModelVersion, Registry

if TYPE_CHECKING:
    from model.training.fit import Outcome

logger = logging.getLogger(__name__)

MAY_CHANGE = ("lr", "clip", "max_epochs", "max_seconds", "patience", "checkpoint_minutes", "description")
"""Fields of a recipe that may be others when training is resumed; with others of the rest it would be another
training.
"""


def train(
    log: pl.LazyFrame,
    registry: Registry,
    recipe: Recipe,
    *,
    name: str,
    log_name: str,
    program_version: str,
    clock: Callable[[], float],
    attribute_column: str | None = None,
    devices: int = 1,
    start_from: ModelVersion | None = None,
    unfinished: Literal["refuse", "resume", "discard"] = "refuse",
    progress: Callable[[], Progress] | None = None,
) -> ModelVersion:
    """Train on a log and add the best epoch to the registry as a new version.

    Args:
        log: `user_id`, `item_id`, `timestamp` (ms) and, if there is an `attribute_column`, `attribute`, as
            `model.log.read_log` gives it.
        name: of the model; at most one training of a name runs in a registry at a time.
        log_name: what the manifest calls the log; of a path, only the last part is kept.
        clock: monotonic seconds.
        attribute_column: what the log calls the column that is `attribute` here; only for `kinds.WITH_ATTRIBUTES`.
        devices: GPUs where there are some, else processes on the CPU.
        start_from: a version whose weights training starts from; its items stay in the catalogue.
        unfinished: what to do about an earlier training of this name that has not finished. "resume" without one starts
            afresh.
        progress: makes the bar to report on; None is silent.

    Raises:
        RecipeInvalid: the recipe's network cannot be, or reads no attributes though there are some.
        TrainingImpossible: nothing useful can be learned from this log by this recipe.
        TrainingUnfinished: an earlier training is there and not to be resumed, or does not fit.
        TrainingDiverged, TrainingInterrupted, TrainingProcessLost: it stopped; the last good checkpoint stays for
            "resume".
        TrainerMissing: lightning-fabric or tensorboardX is not installed.
    """
    _check_installed()
    from model.training.fit import Job, first_checkpoint, fit
    from model.training.progress import TENSORBOARD, kept_scalars

    began = clock()
    _check_attributes(recipe, attribute_column, start_from)
    registry.check_name(name)
    # New networks and dropout draw from torch's global generator: the caller's is put back.
    with torch.random.fork_rng(devices=[]), checkpoint.held(registry.root, name) as place:
        if place.unfinished() and unfinished == "refuse":
            raise TrainingUnfinished(
                f"{place.folder}: an earlier training of {name!r} stopped at {checkpoint.read(place.checkpoint).place}: "
                "--resume goes on with it, --discard forgets it"
            )
        if unfinished == "discard":
            place.discard()
        data = _data(log, recipe, place, start_from)
        if data.attributes is not None and not data.attributes.values:
            raise TrainingImpossible(f"column {attribute_column!r} has no value for any item that is learned from")
        config = _config(recipe, data)
        told = {**_resolved(recipe, data, attribute_column, start_from), "log_sha256": data.digest()}
        scalars = registry.root / TENSORBOARD / name
        if place.unfinished():
            _check_same(checkpoint.read(place.checkpoint), told, place)
        else:
            kept_scalars(scalars, None)
            network = kinds.build(config, data.attribute_of())
            kinds.initialise(network, torch.Generator().manual_seed(recipe.training.seed))
            if start_from is not None:
                known = warm_start.copy_into(
                    network, data.item_ids, start_from.program, start_from.reference, data.attributes
                )
                logger.info(
                    "started from %s: %d of %d items are known to it", start_from.reference, known, len(data.item_ids)
                )
            _check(data, config, network)
            checkpoint.write(first_checkpoint(told, network), place.checkpoint)
        job = Job(
            data=place.data,
            checkpoint=place.checkpoint,
            tensorboard=scalars / "running",
            config=config,
            training=recipe.training,
            clock=clock,
            progress=progress,
            threads=torch.get_num_threads(),
        )
        _raise_unless_finished(fit(job, devices), place)
        resolved = _resolved(recipe, data, attribute_column, start_from)
        version = _add(
            registry, recipe, name, log_name, program_version, data, checkpoint.read(place.checkpoint), resolved
        )
        kept_scalars(scalars, version.version)
        place.discard()
    logger.info("trained %s in %.0f s: %s", version.reference, clock() - began, version.manifest().metrics)
    return version


def _check_installed() -> None:
    missing = [name for name in ("lightning_fabric", "tensorboardX") if util.find_spec(name) is None]
    if missing:
        raise TrainerMissing(f"training needs {' and '.join(missing)}: pip install 'rec2pm[train]'")


def _check_attributes(recipe: Recipe, column: str | None, start_from: ModelVersion | None) -> None:
    kind = recipe.config(n_items=1).kind
    if column is not None and kind not in kinds.WITH_ATTRIBUTES:
        raise RecipeInvalid(
            f"attribute column {column!r}: {kind} reads no attributes; {', '.join(kinds.WITH_ATTRIBUTES)} does"
        )
    earlier = None if start_from is None else start_from.manifest().config.get("attributes")
    if start_from is not None and earlier and column is None:
        raise TrainingImpossible(
            f"{start_from.reference} cannot be started from without attributes: it learned those of column {earlier['column']!r}. "
            "Say what the log calls it with --attribute-column"
        )


def _config(recipe: Recipe, data: Dataset) -> NetworkConfig:
    return recipe.config(len(data.item_ids), 0 if data.attributes is None else len(data.attributes.values))


def _resolved(
    recipe: Recipe, data: Dataset, attribute_column: str | None, start_from: ModelVersion | None
) -> dict[str, Any]:
    """What the manifest says of the recipe and of what the command added to it."""
    config = _config(recipe, data)
    attributes = (
        None if data.attributes is None else {"column": attribute_column, "values": len(data.attributes.values)}
    )
    return {**recipe.resolved(config), "attributes": attributes, "from": start_from and start_from.reference}


def _data(log: pl.LazyFrame, recipe: Recipe, place: TrainingFolder, start_from: ModelVersion | None) -> Dataset:
    options = recipe.training
    earlier = None if start_from is None else artifact.load_weights(start_from.program)
    return dataset.load(
        log,
        split=options.split,
        until_share=options.until_share,
        validation_share=options.validation_share,
        min_item_count=options.min_item_count,
        known=() if earlier is None else earlier.item_ids,
        known_attributes=None if earlier is None else earlier.attributes,
        with_times=recipe.config(n_items=1).options.uses_time,
        folder=place.fresh_data(),
    )


def _check(data: Dataset, config: NetworkConfig, network: Network) -> None:
    """Refuse a log that this network cannot learn from, before any time is spent on it."""
    try:
        kinds.serving(network, torch.from_numpy(data.popularity))
    except ValueError as error:
        raise TrainingImpossible(str(error)) from error
    L, longest = config.shape.segment_length, int(data.trained.max())
    if config.folds_kept and longest <= L:
        median = int(np.median(data.trained[data.trained > 0]))
        raise TrainingImpossible(
            f"{config.kind} learns from folds, and nothing would ever be folded: no user has more than {L} interactions "
            f"before validation (the longest history has {longest}, half of the users have {median} or more). "
            f"segment_length={max(2, min(longest - 1, median // 2))} would work"
        )
    if longest < 2:
        raise TrainingImpossible("no user has two interactions before validation: there is no next item to learn")
    targets = validation.choose(data, np.random.default_rng(0), 1, L)
    if len(targets.user) == 0:
        raise TrainingImpossible(
            "nobody in the validation part has a history to predict from; a larger validation_share may help"
        )


def _check_same(found: Checkpoint, told: dict[str, Any], place: TrainingFolder) -> None:
    network = without_foreign_fields(found.training["network"])
    different = checkpoint.differences({**found.training, "network": network}, told, MAY_CHANGE)
    if different:
        raise TrainingUnfinished(
            f"{place.folder}: the training that stopped at {found.place} is another one: {'; '.join(different)}. "
            "The same log and recipe go on with it (other values of lr, clip, patience and the limits are fine); --discard forgets it"
        )
    logger.info("going on at %s", found.place)


def _raise_unless_finished(outcome: "Outcome", place: TrainingFolder) -> None:
    if outcome.ended == "finished":
        return
    last = checkpoint.read(place.checkpoint).place
    if outcome.ended == "lost":
        raise TrainingProcessLost(f"{outcome.detail}; --resume goes on at {last}")
    if outcome.ended == "interrupted":
        raise TrainingInterrupted(
            f"stopped by {outcome.detail}; the same command with --resume goes on there", outcome.signal
        )
    raise TrainingDiverged(
        f"{outcome.detail}. The last good checkpoint, at {last}, stays in {place.folder}: --resume with a lower --set lr=… goes on from there"
    )


def _add(
    registry: Registry,
    recipe: Recipe,
    name: str,
    log_name: str,
    program_version: str,
    data: Dataset,
    last: Checkpoint,
    resolved: dict[str, Any],
) -> ModelVersion:
    """The best epoch as a version."""
    config = _config(recipe, data)
    network = kinds.build(config, data.attribute_of())
    network.load_state_dict(last.best_weights)
    serving = kinds.serving(network, torch.from_numpy(data.popularity))
    sha256 = artifact.weights_sha256(serving)
    spec = serving.spec()
    manifest = Manifest(
        name=name,
        version="",
        kind=config.kind,
        memory_format=memory_format(config.kind, serving.initial_memory(1).shape[1:], sha256),
        segment_length=spec["segment_length"],
        state_floats=spec["state_floats"],
        n_items=config.shape.n_items,
        config=resolved,
        training=Training(
            log=log_name.rstrip("/").rsplit("/", 1)[-1],
            rows=int(data.trained.sum()),
            users=int((data.trained > 0).sum()),
            items=config.shape.n_items,
            from_ms=data.from_ms,
            until_ms=data.until_ms,
            split=_split_in_words(recipe),
            seed=recipe.training.seed,
            epochs=last.epoch,
            best_epoch=last.best,
            wall_s=round(last.elapsed_s, 1),
            samples=last.samples,
        ),
        metrics=last.best_metrics,
        weights_sha256=sha256,
        program_version=program_version,
        torch_version=str(torch.__version__),
    )
    return registry.add(serving, manifest, data.item_ids, data.attributes)


def _split_in_words(recipe: Recipe) -> str:
    options = recipe.training
    first = f"the first {options.until_share:.0%} of the log"
    if options.split == "time":
        return f"by time: {first}, its last {options.validation_share:.0%} for validation"
    return f"{LAST_OUT}: of {first}, everybody's last interaction is for a test and the one before it for validation"
