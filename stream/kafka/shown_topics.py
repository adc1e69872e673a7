"""What the broker shows of topics: partitions, replication, settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigEntry, ConfigResource, ResourceType

from stream.kafka.names import changelog_topic

ANSWERS_WITHIN_S: Final = 15.0
LARGEST: Final = "max.message.bytes"
_DELETIONS_KEPT_MS: Final = 86_400_000

Shown: TypeAlias = Mapping[str, str] | str
"""A topic's settings; or why the broker does not show them (no permission, or an old broker)."""


@dataclass(frozen=True, slots=True)
class Found:
    partitions: int
    replication: int


def topics_found(admin: AdminClient) -> dict[str, Found]:
    # This lists all topics. A request for one topic by name can make the broker create it.
    topics = admin.list_topics(timeout=ANSWERS_WITHIN_S).topics
    return {
        name: Found(len(topic.partitions), min(len(partition.replicas) for partition in topic.partitions.values()))
        for name, topic in topics.items()
        if topic.error is None and topic.partitions
    }


def settings_of(admin: AdminClient, topics: Sequence[str]) -> dict[str, Shown]:
    """Each topic's configuration, or the reason why the broker does not show it (no permission, or an old broker)."""
    if not topics:
        return {}
    asked = admin.describe_configs(
        [ConfigResource(ResourceType.TOPIC, topic) for topic in topics], request_timeout=ANSWERS_WITHIN_S
    )
    configs: dict[str, Shown] = {}
    for resource, future in asked.items():
        try:
            entries: Mapping[str, ConfigEntry] = future.result(ANSWERS_WITHIN_S)
        except KafkaException as error:
            configs[resource.name] = kafka_error(error).str()
        except TimeoutError:  # a broker that closes the connection on an unknown call leaves the future open
            configs[resource.name] = f"no answer within {ANSWERS_WITHIN_S:.0f} s"
        else:
            configs[resource.name] = {name: entry.value for name, entry in entries.items() if entry.value is not None}
    return configs


def largest_batches(admin: AdminClient, topics: Sequence[str]) -> dict[str, int | None]:
    """`max.message.bytes` of each topic: the largest batch of records it takes, compressed. None where Kafka does not
    show it.
    """
    configs = settings_of(admin, topics)
    return {
        topic: None if isinstance(config, str) or (value := config.get(LARGEST)) is None else int(value)
        for topic in topics
        for config in (configs[topic],)
    }


def deletions_kept_ms(admin: AdminClient, app: str) -> int:
    """How long the changelog keeps deletions, ms; Kafka's default if the broker does not show the setting."""
    topic = changelog_topic(app)
    config = settings_of(admin, [topic])[topic]
    return int(
        (_DELETIONS_KEPT_MS if isinstance(config, str) else config.get("delete.retention.ms")) or _DELETIONS_KEPT_MS
    )


def kafka_error(error: KafkaException) -> KafkaError:
    reason: KafkaError = error.args[0]
    return reason
