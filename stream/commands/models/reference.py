"""What REF means: a version of the registry, or the version that should serve."""

from model.errors import ModelError, ModelNotFound
from model.version.registry import ModelVersion, Registry
from stream.commands.kafka_connection import kafka_options
from stream.commands.models.alias import CHAMPION
from stream.kafka.models_topic import read_models
from stream.kafka.rights import of_models
from stream.promotion.places import places
from stream.promotion.record import Models
from stream.settings import Settings


def version_of(settings: Settings, reference: str, *, whole_or_not: bool = False) -> ModelVersion:
    """NAME, NAME@VERSION or NAME@VERSION#SHA256 of the registry; `champion`: what Kafka says is promoted, in the first
    place where it is found. Only the last one asks Kafka.

    Args:
        whole_or_not: take NAME@VERSION even if files are missing or cut short, to say which.

    Raises:
        ModelNotFound: there is no such version, or nothing is promoted.
        ModelError: the promoted version is out of reach.
        KafkaUnusable: Kafka does not say what is promoted.
    """
    registry = Registry(settings.models)
    if reference != CHAMPION:
        return registry.place_of(reference) if whole_or_not else registry.resolve(reference)
    promotion = promoted(settings).aliases.get(CHAMPION)
    if promotion is None:
        raise ModelNotFound(f"nothing is promoted in {settings.app} yet, so there is no {CHAMPION}")
    *others, last = places(promotion, registry)
    for place in others:
        try:
            place.files()
        except ModelError:
            continue
        return place
    return last


def promoted(settings: Settings) -> Models:
    """What Kafka says of promotions. Raises what `read_models` raises."""
    return read_models(kafka_options(settings, *of_models(settings.names)), settings.app)
