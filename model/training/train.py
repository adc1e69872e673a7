"""Training: an event log in, a new version in the registry out.

The clock and the display of progress are arguments. All randomness comes from one seed. On a CPU, the same log, recipe,
number of devices and number of threads give the same weights, whether or not training was interrupted, unless
`max_seconds` ends it.
"""

import logging
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
import torch

from model.errors import (
    RecipeInvalid,
    TrainerMissing,
    TrainingDiverged,
    TrainingImpossible,
    TrainingInterrupted,
    TrainingProcessLost,
    TrainingUnfinished,
    how_to_install,
)
from model.networks import kinds
from model.networks.config import NetworkConfig, without_foreign_fields
from model.training import checkpoint, kept_format, summary, warm_start
from model.training.checkpoint import Checkpoint, TrainingFolder
from model.training.dataset import Dataset
from model.training.prepared import prepare
from model.training.progress import TENSORBOARD, Display, kept_scalars
from model.training.recipe import Recipe
from model.version import artifact
from model.version.manifest import LAST_OUT, Forgotten, Manifest, Training, memory_format
from model.version.registry import ModelVersion, Registry

if TYPE_CHECKING:
    from model.training.fit import Outcome

logger = logging.getLogger(__name__)

MAY_CHANGE = ("lr", "clip", "max_epochs", "max_seconds", "patience", "checkpoint_minutes", "description")
"""Fields of a recipe that may change when training is resumed. If another field changes, it is another training."""


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
    keep_format: bool = False,
    unfinished: Literal["refuse", "resume", "discard"] = "refuse",
    progress: Callable[[], Display] | None = None,
    forgotten: Forgotten | None = None,
    work: Path | None = None,
) -> ModelVersion:
    """Train on a log and add the best epoch to the registry as a new version.

    Args:
        log: `user_id`, `item_id`, `timestamp` (ms) and, if there is an `attribute_column`, `attribute`, as
            `model.log.read_log` gives it.
        name: the name of the model. At most one training of a name runs in a registry at a time.
        log_name: what the manifest calls the log. Of a path, the last part.
        clock: monotonic seconds.
        attribute_column: the name in the log of the column `attribute`; only for `kinds.WITH_ATTRIBUTES`.
        devices: GPUs if there are any, else processes on the CPU.
        start_from: a version whose weights training starts from. Its items stay in the catalogue.
        keep_format: try to keep the memory format of `start_from` (`model.training.kept_format`). If the new version
            reads its memories too badly, the new version has a format of its own, and a warning says why.
        unfinished: what to do about an earlier training of this name that has not finished. Without such a training,
            "resume" starts from the beginning.
        progress: makes the display of progress; None: nothing is shown.
        forgotten: who is no longer in the log, for the manifest.
        work: the folder of this machine for the checkpoint and the encoded log; None: that of the registry.

    Raises:
        RecipeInvalid: the network of the recipe cannot be, or it reads no attributes and there is an
        `attribute_column`.
        TrainingImpossible: this recipe can learn nothing useful from this log.
        TrainingUnfinished: there is an earlier training, and it must not be resumed or is another one.
        TrainingDiverged, TrainingInterrupted, TrainingProcessLost: training stopped. The last good checkpoint stays for
            "resume".
        TrainerMissing: lightning-fabric, safetensors or tensorboardX is not installed.
    """
    _check_installed()
    from model.training.fit import Job, first_checkpoint, fit

    began = clock()
    _check_attributes(recipe, attribute_column, start_from)
    registry.check_name(name)
    # New networks and dropout draw from the global generator of torch. Its state is restored for the caller.
    with torch.random.fork_rng(devices=[]), checkpoint.held(work or registry.training_folder, name) as training:
        if training.unfinished() and unfinished == "refuse":
            raise TrainingUnfinished(
                f"{training.folder}: an earlier training of {name!r} stopped at {checkpoint.read(training.checkpoint).reached}: "
                "--resume continues it, --discard deletes it"
            )
        if unfinished == "discard":
            training.discard()
        prepared = prepare(
            log, recipe, training, start_from=start_from, keep_format=keep_format, attribute_column=attribute_column
        )
        data, config, network = prepared.data, prepared.config, prepared.network
        summary.before(prepared, recipe.training, registry, name, start_from)
        identity = {
            **_resolved(recipe, data, attribute_column, start_from, keep_format=keep_format),
            "log_sha256": data.digest(),
        }
        scalars = registry.training_folder / TENSORBOARD / name
        if training.unfinished():
            _check_same(checkpoint.read(training.checkpoint), identity, training)
        else:
            kept_scalars(scalars, None)
            kinds.initialise(network, torch.Generator().manual_seed(recipe.training.seed))
            if start_from is not None:
                known = warm_start.copy_into(network, data.item_ids, start_from, data.attributes)
                logger.info(
                    "starting from %s, which knows %d of %d items", start_from.reference, known, len(data.item_ids)
                )
            checkpoint.write(first_checkpoint(identity, network), training.checkpoint)
        job = Job(
            data=training.data,
            checkpoint=training.checkpoint,
            tensorboard=scalars / "running",
            config=config,
            training=recipe.training,
            clock=clock,
            progress=progress,
            threads=torch.get_num_threads(),
        )
        outcome = fit(job, devices)
        _raise_unless_finished(outcome, training)
        resolved = _resolved(recipe, data, attribute_column, start_from, keep_format=keep_format)
        last = checkpoint.read(training.checkpoint)
        kept_from = start_from if keep_format else None
        version = _add(
            registry,
            recipe,
            name,
            log_name,
            program_version,
            data,
            last,
            resolved,
            outcome.detail,
            kept_from,
            forgotten,
        )
        kept_scalars(scalars, version.version)
        training.discard()
    logger.info("trained %s in %.0f s", version.reference, clock() - began)
    summary.after(version.manifest())
    return version


def _check_installed() -> None:
    missing = [name for name in ("lightning_fabric", "safetensors", "tensorboardX") if util.find_spec(name) is None]
    if missing:
        raise TrainerMissing(f"training needs {' and '.join(missing)}: {how_to_install('train')}")


def _check_attributes(recipe: Recipe, column: str | None, start_from: ModelVersion | None) -> None:
    kind = recipe.config(n_items=1).kind
    if column is not None and kind not in kinds.WITH_ATTRIBUTES:
        raise RecipeInvalid(
            f"attribute column {column!r}: {kind} reads no attributes; {', '.join(kinds.WITH_ATTRIBUTES)} does"
        )
    earlier = None if start_from is None else start_from.manifest().config.get("attributes")
    if start_from is not None and earlier and column is None:
        raise TrainingImpossible(
            f"training cannot start from {start_from.reference} without attributes: it learned those of column {earlier['column']!r}. "
            "Name this column of the log with --attribute-column"
        )


def _config(recipe: Recipe, data: Dataset) -> NetworkConfig:
    return recipe.config(len(data.item_ids), 0 if data.attributes is None else len(data.attributes.values))


def _resolved(
    recipe: Recipe, data: Dataset, attribute_column: str | None, start_from: ModelVersion | None, *, keep_format: bool
) -> dict[str, Any]:
    """What the manifest says about the recipe and about what the command added to it."""
    config = _config(recipe, data)
    attributes = (
        None if data.attributes is None else {"column": attribute_column, "values": len(data.attributes.values)}
    )
    resolved = {**recipe.resolved(config), "attributes": attributes, "from": start_from and start_from.reference}
    return {**resolved, "keep_memory_format": True} if keep_format else resolved


def _check_same(found: Checkpoint, identity: dict[str, Any], training: TrainingFolder) -> None:
    network = without_foreign_fields(found.training["network"])
    different = checkpoint.differences({**found.training, "network": network}, identity, MAY_CHANGE)
    if different:
        raise TrainingUnfinished(
            f"{training.folder}: the training that stopped at {found.reached} is another one: {'; '.join(different)}. "
            "--resume needs the same log and recipe (lr, clip, patience and the limits may change). --discard deletes the training"
        )
    logger.info("resuming at %s", found.reached)


def _raise_unless_finished(outcome: "Outcome", training: TrainingFolder) -> None:
    if outcome.ended == "finished":
        return
    last = checkpoint.read(training.checkpoint).reached
    if outcome.ended == "lost":
        raise TrainingProcessLost(f"{outcome.detail}. --resume continues at {last}")
    if outcome.ended == "interrupted":
        raise TrainingInterrupted(
            f"stopped by {outcome.detail}. The same command with --resume continues there", outcome.signal
        )
    raise TrainingDiverged(
        f"{outcome.detail}. The last good checkpoint, at {last}, is in {training.folder}. --resume with a lower --set lr=… continues there"
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
    ended: str,
    kept_from: ModelVersion | None,
    forgotten: Forgotten | None,
) -> ModelVersion:
    """Add the best epoch as a version.

    Args:
        ended: as in `model.version.manifest.Training`.
        kept_from: the version whose memory format is kept, if its memories are read well enough.
    """
    config = _config(recipe, data)
    network = kinds.build(config, data.attribute_of())
    network.load_state_dict(last.best_weights)
    serving = kinds.serving(network, torch.from_numpy(data.popularity))
    sha256 = artifact.weights_sha256(serving)
    spec = serving.spec()
    own_format = memory_format(config.kind, serving.initial_memory(1).shape[1:], sha256)
    kept = None if kept_from is None else kept_format.kept(serving, data, registry, kept_from, recipe.training.seed)
    manifest = Manifest(
        name=name,
        version="",
        kind=config.kind,
        memory_format=own_format if kept is None or kept_from is None else kept_from.manifest().memory_format,
        kept_format=kept,
        forgotten=forgotten,
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
            ended=ended,
        ),
        metrics=last.best_metrics,
        weights_sha256=sha256,
        program_version=program_version,
    )
    return registry.add(serving, manifest, data.item_ids, data.attributes)


def _split_in_words(recipe: Recipe) -> str:
    options = recipe.training
    first = f"the first {options.until_share:.0%} of the log"
    if options.split == "time":
        return f"by time: {first}, its last {options.validation_share:.0%} for validation"
    return f"{LAST_OUT}: of {first}, each user's last interaction is for a test, and the one before it for validation"
