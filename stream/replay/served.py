"""What served an application, as the marks in its changelog say: the schedule for a replay of what users were shown."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from model.errors import ModelError
from model.version.registry import ModelVersion, Registry
from state.codec import Mark
from stream.errors import ReplayFailed
from stream.kafka.marks import marks
from stream.kafka.models_topic import read_models
from stream.promotion.places import places
from stream.promotion.record import Models
from stream.replay.run import Contender, Turn

SERVED: Final = "served"
"""The name of this contender."""


def as_served(kafka: Mapping[str, Any], app: str, partitions: Iterable[int], registry: Registry) -> Contender:
    """The versions that served each partition, and from which offset on.

    Args:
        kafka: options for the connection, `bootstrap.servers` among them.
        partitions: of the interactions topic, those that have interactions.

    Raises:
        ReplayFailed: a partition has no mark, or a version cannot be had any more.
        TopicsUnusable, BehindOpenTransaction, KafkaUnusable: the marks or the promotions cannot be read.
    """
    promoted = read_models(kafka, app)
    turns: dict[int, tuple[Turn, ...]] = {}
    for partition in partitions:
        found = marks(kafka, app, partition)
        if not found:
            raise ReplayFailed(
                f"no worker of {app} has served partition {partition} yet: it has no mark in its changelog"
            )
        turns[partition] = tuple(
            Turn(
                version_of(mark, promoted, registry),
                from_offset=mark.offset,
                promotion=mark.promotion,
            )
            for mark in found
        )
    return Contender(SERVED, (), of_partition=turns)


def version_of(mark: Mark, promoted: Models, registry: Registry) -> ModelVersion:
    """The version of a mark: with the files that were promoted, or as the registry has it if the settings named it.

    Raises:
        ReplayFailed: it cannot be had any more.
    """
    record = promoted.history.get(mark.promotion)
    why: ModelError | None = None
    for version in [] if record is None else places(record, registry):
        try:
            version.files()
        except ModelError as error:
            why = error
        else:
            return version
    if record is None:
        try:
            return registry.resolve(mark.version)
        except ModelError as error:
            why = error
    raise ReplayFailed(f"{mark.version} has served, and cannot be had any more: {why}") from why
