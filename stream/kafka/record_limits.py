"""How large records may be: the topics' limits, and the clients' options that follow them.

A topic's `max.message.bytes` limits a batch as it arrives at the broker: after compression. So a record may be larger
than the limit of its topic, and clients must not refuse what the broker takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka.admin import AdminClient

from stream.kafka.names import changelog_topic, dead_letter_topic
from stream.kafka.shown_topics import largest_batches
from stream.wire import LETTER_HEADERS_BYTES

_LARGEST_ANSWER_BYTES: Final = 2**31 - 1
"""librdkafka's largest `receive.message.max.bytes`: below it, one large record would break every connection."""
_LARGEST_PRODUCED_BYTES: Final = 1_000_000_000
"""librdkafka's largest `message.max.bytes`."""
_BATCH_BYTES: Final = 1_000_000
"""librdkafka's own `batch.size`."""


@dataclass(frozen=True, slots=True)
class RecordLimits:
    """`max.message.bytes` of topics; None where Kafka does not show it."""

    interactions: int | None = None
    dead_letters: int | None = None
    smallest_output: int | None = None
    """Of the topics that a step writes."""


UNKNOWN: Final = RecordLimits()


def record_limits(admin: AdminClient, app: str, interactions_topic: str, recommendations_topic: str) -> RecordLimits:
    """Ask Kafka.

    Raises:
        KafkaException: Kafka does not answer.
    """
    dead_letters = dead_letter_topic(app)
    outputs = [changelog_topic(app), recommendations_topic, dead_letters]
    found = largest_batches(admin, [interactions_topic, *outputs])
    return RecordLimits(
        found[interactions_topic],
        found[dead_letters],
        min((limit for name in outputs if (limit := found[name]) is not None), default=None),
    )


def writing(options: Mapping[str, Any], limits: RecordLimits) -> dict[str, Any]:
    """A producer's options with limits that hold the largest record of the input, and batches that fit every topic.

    The queue holds the largest record, or librdkafka would call it full for ever.
    """
    queue = int(options.get("queue.buffering.max.kbytes", _LARGEST_PRODUCED_BYTES >> 10))
    needed = (limits.interactions or 0) + LETTER_HEADERS_BYTES
    largest = min(int(options.get("message.max.bytes", max(queue << 10, needed))), _LARGEST_PRODUCED_BYTES)
    return {
        "batch.size": max(1, min(_BATCH_BYTES, limits.smallest_output or _BATCH_BYTES)),
        **options,
        "message.max.bytes": largest,
        "queue.buffering.max.kbytes": max(queue, (largest >> 10) + 1),
    }


def reading(options: Mapping[str, Any]) -> dict[str, Any]:
    """A consumer's options, with which a record of any size arrives: Kafka sends the first batch whatever its size."""
    return {"receive.message.max.bytes": _LARGEST_ANSWER_BYTES, **options}
