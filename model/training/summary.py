"""What training says before it starts and after it has ended, and what a user must know about the result."""

import logging
from typing import Final

from model.errors import ModelError
from model.training import validation
from model.training.prepared import Prepared
from model.training.recipe import TrainingOptions
from model.version.manifest import Manifest, Metrics
from model.version.registry import ModelVersion, Registry

logger = logging.getLogger(__name__)

MOST_OUTSIDE: Final = 0.5
"""If the catalogue lacks a larger share of the validation targets, the metrics say little."""
FEW_TARGETS: Final = 200
"""With fewer, the 95 % interval of a HR@10 of 5 % is wider than ±3 %."""
FEW_EPOCHS: Final = 5


def before(
    prepared: Prepared, options: TrainingOptions, registry: Registry, name: str, start_from: ModelVersion | None
) -> None:
    """Say what is learned from, what ends training, and what stands against it."""
    data = prepared.data
    logger.info(
        "training on %s interactions of %s users with %s items; it ends %s",
        f"{int(data.trained.sum()):,}",
        f"{int((data.trained > 0).sum()):,}",
        f"{len(data.item_ids):,}",
        ends(options),
    )
    length = prepared.config.shape.segment_length
    earlier = {version.reference: version for version in (*registry.versions(name)[-1:], start_from) if version}
    for reference, version in earlier.items():
        of_earlier = _segment_length(version)
        if of_earlier not in (None, length):
            logger.warning(
                "%s has segment_length=%d and this training has %d: workers with stored state will refuse the new version. "
                "To replace %s, train with --set segment_length=%d",
                reference,
                of_earlier,
                length,
                reference,
                of_earlier,
            )
    targets = len(prepared.targets.user)
    outside, repeated = validation.unreachable(data, prepared.targets)
    if outside > MOST_OUTSIDE * targets:
        logger.warning(
            "%d of %d validation targets (%.0f %%) are items that the catalogue lacks, so no list can have them: they are "
            "new, or the training part has them less than min_item_count=%d times",
            outside,
            targets,
            100 * outside / targets,
            options.min_item_count,
        )
    elif outside:
        logger.info(
            "the catalogue lacks %d of %d validation targets (%.1f %%)", outside, targets, 100 * outside / targets
        )
    if repeated > MOST_OUTSIDE * targets:
        logger.warning(
            "%d of %d validation targets (%.0f %%) are items that the user had before, so no list has them, because lists "
            "leave out a user's own items",
            repeated,
            targets,
            100 * repeated / targets,
        )


def after(manifest: Manifest) -> None:
    """Say why training ended, which epoch was the best, and how good it is."""
    training, metrics = manifest.training, manifest.metrics
    if training is None or metrics is None:
        return
    logger.info(
        "%s has the weights of epoch %d of %d, the best one. Training ended because %s",
        manifest.reference,
        training.best_epoch,
        training.epochs,
        _why(manifest),
    )
    popular = "" if metrics.popularity_ndcg_at_10 is None else f" (popular items: {metrics.popularity_ndcg_at_10:.4f})"
    logger.info(
        "on %s interactions of the validation part: HR@10 %.4f (popular items: %.4f), NDCG@10 %.4f%s",
        f"{metrics.targets:,}",
        metrics.hr_at_10,
        metrics.popularity_hr_at_10,
        metrics.ndcg_at_10,
        popular,
    )
    if training.samples == 0:
        logger.warning(
            "%s has learned nothing: training ended before its first window. A larger max_seconds helps",
            manifest.reference,
        )
    elif worse_than_popularity(metrics):
        logger.warning(
            "%s is worse than the list of popular items, HR@10 %.4f against %.4f, NDCG@10 %.4f against %.4f: do not serve it. %s",
            manifest.reference,
            metrics.hr_at_10,
            metrics.popularity_hr_at_10,
            metrics.ndcg_at_10,
            metrics.popularity_ndcg_at_10 or 0.0,
            _advice(manifest),
        )


def ends(options: TrainingOptions) -> str:
    """What ends a training, in words."""
    limit = "" if options.max_seconds is None else f", or after {options.max_seconds:.0f} s (max_seconds)"
    return (
        f"after {_epochs(options.patience)} without a better NDCG@10 (patience), after {_epochs(options.max_epochs)} "
        f"(max_epochs){limit}"
    )


def worse_than_popularity(metrics: Metrics) -> bool:
    """Whether the list of popular items is better by either metric."""
    return metrics.hr_at_10 < metrics.popularity_hr_at_10 or (
        metrics.popularity_ndcg_at_10 is not None and metrics.ndcg_at_10 < metrics.popularity_ndcg_at_10
    )


def _segment_length(version: ModelVersion) -> int | None:
    """The segment length of a version; None if it cannot be read, which is no reason against a new one."""
    try:
        return version.manifest().segment_length
    except (ModelError, OSError):
        return None


def _why(manifest: Manifest) -> str:
    assert manifest.training is not None
    ended, options = manifest.training.ended, manifest.config.get("training", {})
    if ended == "patience":
        return f"NDCG@10 was not better in the {_epochs(options['patience'])} after it (patience)"
    if ended == "max_epochs":
        return f"{_epochs(options['max_epochs'])} had passed (max_epochs)"
    return f"{options['max_seconds']:.0f} s had passed (max_seconds)"


def _advice(manifest: Manifest) -> str:
    training, metrics = manifest.training, manifest.metrics
    assert training is not None
    assert metrics is not None
    if metrics.targets < FEW_TARGETS:
        return f"With {metrics.targets} targets that may be chance: a longer log tells"
    if training.ended in ("max_epochs", "max_seconds") and (
        training.best_epoch == training.epochs or training.epochs < FEW_EPOCHS
    ):
        return f"{training.ended} ended it while it may still have got better: train with a larger one"
    if training.best_epoch == 0:
        return (
            "No epoch was better than the weights before the first step: try another lr, a longer log or another recipe"
        )
    return "Try a longer log or another recipe; docs/models.md says which suits what"


def _epochs(number: int) -> str:
    return f"{number} epoch{'' if number == 1 else 's'}"
