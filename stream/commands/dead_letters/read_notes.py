"""What earlier replays noted, read from Kafka: the committed offsets of the group `<app>.dead-letters`."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from stream.commands.dead_letters.notes import Replayed, decoded
from stream.kafka.names import replay_group

_CALL_S: Final = 30.0
_PATIENCE_S: Final = 60.0
_AGAIN_AFTER_S: Final = 0.1
_SHORTEST_KEPT_MS: Final = 24 * 3_600_000
"""Assumed where a broker does not say how long it keeps offsets: the default before Kafka 2.0."""


def read_notes(
    kafka: Mapping[str, Any],
    app: str,
    topic: str,
    numbers: Sequence[int],
    isolation: Literal["read_committed", "read_uncommitted"],
) -> dict[int, Replayed | None]:
    """Partition → the letters that were replayed; None where Kafka has no note of it."""
    # A consumer that never joins. AdminClient.list_consumer_group_offsets ends the process with a segmentation fault
    # (librdkafka 2.16.0) when the group's coordinator is not there yet.
    consumer = Consumer({**kafka, "group.id": replay_group(app), "isolation.level": isolation, "log_level": 3})
    partitions = [TopicPartition(topic, number) for number in numbers]
    try:
        committed = _until_answered(lambda: consumer.committed(partitions, timeout=5.0))
    finally:
        consumer.close()
    return {each.partition: None if each.offset < 0 else decoded(each.offset, each.metadata) for each in committed}


def _until_answered(ask: Callable[[], list[TopicPartition]]) -> list[TopicPartition]:
    """Ask again while Kafka makes the group's coordinator, or waits for the end of a transaction."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            if time.monotonic() > deadline or error.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                raise
            time.sleep(_AGAIN_AFTER_S)


def offsets_kept_ms(kafka: Mapping[str, Any]) -> int:
    """How long a broker keeps offsets that nobody renews."""
    admin = AdminClient({**kafka, "log_level": 3})
    with suppress(KafkaException, TimeoutError):
        number = next(iter(admin.list_topics(timeout=_CALL_S).brokers))
        (described,) = admin.describe_configs(
            [ConfigResource(ResourceType.BROKER, str(number))], request_timeout=_CALL_S
        ).values()
        entry = described.result(_CALL_S).get("offsets.retention.minutes")
        if entry is not None and entry.value is not None:
            return int(entry.value) * 60_000
    return _SHORTEST_KEPT_MS
