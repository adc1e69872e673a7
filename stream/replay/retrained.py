"""Models that are trained on the way, each on the past alone. Each serves from the moment at which it was trained."""

import logging
import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Final

import polars as pl

from model.errors import LogUnreadable
from model.training.progress import Display
from model.training.recipe import Recipe
from model.training.train import train
from model.version.registry import ModelVersion, Registry
from stream.replay.run import Contender, Turn

logger = logging.getLogger(__name__)

_UNITS: Final = {"h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_MOST: Final = 1000


def interval_ms(text: str) -> int:
    """The milliseconds of `12h`, `7d` or `2w`. Raises ValueError for another text."""
    found = re.fullmatch(r"([0-9]{1,5})([hdw])", text)
    if found is None or int(found[1]) == 0:
        raise ValueError(f"is {text!r}, expected a number of hours, days or weeks: 12h, 7d, 2w")
    return int(found[1]) * _UNITS[found[2]]


def retrained(
    log: pl.LazyFrame,
    every: str,
    begin_ms: int,
    recipe: Recipe,
    folder: Path,
    *,
    warm: bool,
    clock: Callable[[], float],
    progress: Callable[[], Display] | None,
) -> Contender:
    """Train a version at `begin_ms` and after every interval of the log from then on. What is trained already stays.

    Args:
        log: user_id, item_id, timestamp (epoch ms).
        every: `interval_ms`.
        begin_ms: the first version knows what came before this time. It serves before it too, where lists do not count.
        folder: a registry for the versions.
        warm: each version starts from the weights of the one before.
        clock: monotonic seconds.

    Raises:
        LogUnreadable: nothing comes before or after `begin_ms`, or there would be too many trainings.
        TrainingImpossible, TrainingDiverged, TrainingInterrupted, TrainerMissing: as `train` does.
    """
    first, last = log.select(pl.col("timestamp").min(), pl.col("timestamp").max().alias("last")).collect().row(0)
    moments = list(range(begin_ms, last + 1, interval_ms(every)))
    if not first < begin_ms <= last:
        raise LogUnreadable(
            "--train-every needs interactions before and after the first training: --from says when that is, as a time or a share of the log"
        )
    if len(moments) > _MOST:
        raise LogUnreadable(
            f"--train-every {every} would train {len(moments)} times, at most {_MOST}: choose a longer interval"
        )
    name = f"every-{every}"
    registry = Registry(folder)
    turns: list[Turn] = []
    for number, moment in enumerate(moments):
        there = registry.versions(name)
        if len(there) > number:
            version = there[number]
        else:
            logger.info("training %d of %d of %s", number + 1, len(moments), name)
            version = _trained(
                log, moment, recipe, registry, name, turns[-1].version if warm and turns else None, clock, progress
            )
        turns.append(Turn(version, from_ms=0 if number == 0 else moment))
    return Contender(name, tuple(turns))


def _trained(
    log: pl.LazyFrame,
    moment: int,
    recipe: Recipe,
    registry: Registry,
    name: str,
    start_from: ModelVersion | None,
    clock: Callable[[], float],
    progress: Callable[[], Display] | None,
) -> ModelVersion:
    return train(
        log.filter(pl.col("timestamp") < moment),
        registry,
        recipe,
        name=name,
        log_name=f"until-{moment}",
        program_version=metadata.version("rec2pm"),
        clock=clock,
        start_from=start_from,
        unfinished="resume",
        progress=progress,
    )
