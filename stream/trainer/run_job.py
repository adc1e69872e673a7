"""What a process of its own does for a trainer: train, and promote.

It can be killed at any point and started again. What is done is noted in the folder of the training, and a version that
was written before its end could be noted is found again by the name of its log.
"""

import logging
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from model.errors import ModelError, TrainingDiverged, TrainingImpossible
from model.log import open_log
from model.times import TimeRule
from model.training import recipe as recipes
from model.training.progress import on_stderr
from model.training.train import train
from model.version.manifest import Forgotten
from model.version.registry import ModelVersion, Registry
from stream.errors import GateFailed, PromotionConflict, TopicsUnusable
from stream.kafka.models_topic import read_models
from stream.promotion.places import places
from stream.promotion.promote import Wish, promote
from stream.promotion.record import CHAMPION, Check, Promotion
from stream.promotion.who import promoter
from stream.settings import Settings
from stream.trainer.job import Ended, Job, JobFolder, Start, Trained
from stream.trainer.points import At, Point, passing

logger = logging.getLogger(__name__)

DEFAULT_NAME = "rec2pm"
"""Of a model that starts from nothing."""


def run(
    folder: JobFolder, settings: Settings, kafka: Mapping[str, Any], *, now_ms: Callable[[], int], at: At = passing
) -> None:
    """Do what is left to do of a training.

    Args:
        kafka: options of a client, `bootstrap.servers` among them.

    Raises:
        What `model.training.train.train` raises, but for what the log cannot help; then the training has ended.
        KafkaUnusable: Kafka does not answer.
    """
    job = folder.job()
    if job is None or folder.ended() is not None:
        return
    registry = Registry(settings.models)
    trained = folder.trained()
    if trained is None:
        trained = _train(folder, job, registry, settings, kafka, at)
        folder.note(trained)
    at(Point.TRAINED)
    if trained.version is None:
        folder.note(Ended(None, f"no version: {trained.why}"))
    elif job.promote:
        words = _promote(folder, trained, settings, kafka, now_ms)
        at(Point.PROMOTED)
        folder.note(Ended(trained.version, words))
    else:
        folder.note(
            Ended(trained.version, f"wrote {trained.version}; `rec2pm models promote {trained.version}` promotes it")
        )


def _train(
    folder: JobFolder, job: Job, registry: Registry, settings: Settings, kafka: Mapping[str, Any], at: At
) -> Trained:
    start = folder.start()
    if start is None:
        start = _start(job, registry, settings, kafka)
        folder.note(start)
    earlier = None
    if start.version is not None and start.uri is not None:
        name, _, number = start.version.rpartition("@")
        earlier = ModelVersion(name, int(number), start.uri, start.sha256)
    name = job.name or (DEFAULT_NAME if earlier is None else earlier.name)
    if (done := _written(registry, name, job)) is not None:
        return Trained(done.reference, done.digest(), None)
    if job.recipe is None and earlier is not None:
        chosen = recipes.of_manifest(earlier.manifest().config, earlier.reference)
    else:
        chosen = recipes.load(job.recipe or recipes.DEFAULT)
    times = settings.times
    try:
        version = train(
            open_log(folder.data, times=TimeRule("ms", times.earliest_ms, times.latest_ms)).interactions,
            registry,
            recipes.changed(chosen, job.settings),
            name=name,
            log_name=job.id,
            program_version=metadata.version("rec2pm"),
            clock=time.monotonic,
            start_from=earlier,
            keep_format=job.keep_format and earlier is not None,
            unfinished="resume",
            progress=on_stderr,
            forgotten=Forgotten(users=job.forgotten, until=dict(job.until)),
            work=folder.work,
        )
    except (TrainingImpossible, TrainingDiverged) as error:
        return Trained(None, None, str(error))
    at(Point.ADDED)
    return Trained(version.reference, version.digest(), None)


def _start(job: Job, registry: Registry, settings: Settings, kafka: Mapping[str, Any]) -> Start:
    """The champion, or the newest version of the name; nothing if there is neither."""
    try:
        champion = read_models(kafka, settings.app).aliases.get(CHAMPION)
    except TopicsUnusable as error:
        logger.info("there is no champion: %s", error)
        champion = None
    if champion is not None:
        version = _of_record(champion, registry)
        if version is not None:
            return Start(version.reference, version.uri, champion.sha256)
        logger.warning("the champion %s cannot be read here: starting from the newest version", champion.version)
    names = [job.name] if job.name is not None else registry.names()
    newest = [registry.versions(name)[-1] for name in names if registry.versions(name)]
    if len(newest) == 1:
        return Start(newest[0].reference, newest[0].uri, newest[0].digest())
    if newest:
        logger.warning(
            "the registry has several models (%s) and nothing is promoted: starting from nothing. --name says which to continue",
            ", ".join(version.name for version in newest),
        )
    return Start(None, None, None)


def _of_record(promotion: Promotion, registry: Registry) -> ModelVersion | None:
    """The version of a promotion, if it can be read."""
    for version in places(promotion, registry):
        try:
            version.manifest()
        except ModelError as error:
            logger.debug("%s: %s", version.uri, error)
        else:
            return version
    return None


def _written(registry: Registry, name: str, job: Job) -> ModelVersion | None:
    """The version that this very training wrote before its process ended."""
    for version in reversed(registry.versions(name)[-3:]):
        training = version.manifest().training
        if training is not None and training.log == job.id:
            return version
    return None


def _promote(
    folder: JobFolder, trained: Trained, settings: Settings, kafka: Mapping[str, Any], now_ms: Callable[[], int]
) -> str:
    """Promote the version through the gate. Returns how that ended."""
    current = read_models(kafka, settings.app).aliases.get(CHAMPION)
    if current is not None and (current.version, current.sha256) == (trained.version, trained.sha256):
        return f"{trained.version} is the champion"
    times = settings.times
    log = open_log(folder.data, times=TimeRule("ms", times.earliest_ms, times.latest_ms)).interactions
    wish = Wish(reference=f"{trained.version}#{trained.sha256}", who=f"rec2pm trainer, {promoter()}", log=log)
    try:
        promote(settings, kafka, wish, now_ms=now_ms, heard=_said)
    except (GateFailed, PromotionConflict) as error:
        return str(error)
    return f"{trained.version} is promoted"


def _said(check: Check) -> None:
    logger.info("gate %s: %s: %s", check.name, check.result, check.figure)
