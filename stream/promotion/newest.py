"""The newest interactions of the input topic, read as a worker reads them: what a version will be asked about."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka.admin import AdminClient

from model.ids import Id
from stream.errors import MalformedInteraction
from stream.event import EventReader
from stream.kafka.sample import Sample, newest
from stream.keys import KeyFormat
from stream.settings import Settings

RECORDS: Final = 10_000
WITHIN_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Newest:
    """Interactions of a topic: of each user, oldest first. `users[i]` acted on `items[i]` at `times[i]`, epoch ms."""

    topic: str
    users: tuple[bytes, ...]
    items: tuple[Id, ...]
    times: tuple[int, ...]


def newest_interactions(admin: AdminClient, kafka: Mapping[str, Any], settings: Settings) -> Newest:
    """Read the newest records of the input topic; those that a worker would refuse or pass over are left out.

    Raises:
        KafkaUnusable: the topic cannot be read.
        KafkaException: Kafka does not answer.
    """
    sample = newest(admin, kafka, settings.interactions_topic, RECORDS, WITHIN_S)
    return as_interactions(sample, settings)


def as_interactions(sample: Sample, settings: Settings) -> Newest:
    """The interactions of a sample."""
    keys, events = KeyFormat(settings.key_format), EventReader(settings.fields, settings.times)
    users: list[bytes] = []
    items: list[Id] = []
    times: list[int] = []
    for record in sample.records:
        if record.value is None:  # the user is to be forgotten
            continue
        try:
            user = keys.user(record.key)
            found = events.read(record.value, user)
        except MalformedInteraction:
            continue
        if found is not None:
            users.append(user)
            items.append(found[0])
            times.append(found[1] if isinstance(found[1], int) else record.timestamp)
    return Newest(settings.interactions_topic, tuple(users), tuple(items), tuple(times))
