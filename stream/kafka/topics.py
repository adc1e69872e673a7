"""The application's topics: how they should be, and creating them.

Plans and outcomes are values; the commands print them. Nothing here deletes or alters an existing topic.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from stream.kafka.errors import NOT_ALLOWED
from stream.kafka.names import changelog_topic, dead_letter_topic, models_topic
from stream.kafka.rights import Right
from stream.kafka.shown_topics import (
    ANSWERS_WITHIN_S,
    LARGEST,
    Found,
    Shown,
    kafka_error,
    largest_batches,
    settings_of,
    topics_found,
)
from stream.wire import LETTER_HEADERS_BYTES

CleanupPolicy = Literal["compact", "delete"]

COMPACTION_LAG: Final = "max.compaction.lag.ms"
_COMPACTED_DAILY: Final = ((COMPACTION_LAG, str(86_400_000)),)
"""The longest compaction lag. Without it Kafka may never compact a quiet topic, and a forgotten user's data stay."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be."""

    name: str
    purpose: str
    """What the topic holds, in words for people."""
    partitions: int
    replication: int | None
    """Copies of each partition; None leaves it to the broker's `default.replication.factor`."""
    cleanup: CleanupPolicy
    """What Kafka does with old records: `compact` keeps the newest of each key, `delete` drops them by age or size."""
    settings: tuple[tuple[str, str], ...] = ()
    """Other topic settings, (name, value) each."""
    holds: str | None = None
    """The topic whose records must fit into this one, with the headers of a dead letter."""

    @property
    def config(self) -> dict[str, str]:
        """Every topic setting that is not left to the broker."""
        return {"cleanup.policy": self.cleanup, **dict(self.settings)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `create` did about one topic: created it, left an existing one, or was refused (`reason` says why)."""

    topic: TopicSpec
    result: Literal["created", "exists", "refused"]
    reason: str | None = None


def plan(
    app: str, interactions_topic: str, recommendations_topic: str, partitions: int, replication: int | None
) -> list[TopicSpec]:
    """The topics of an application, the input first.

    A user's changelog records must be in the partition with the same number as the user's input partition, so these
    topics always have the same number of partitions.
    """
    return [
        TopicSpec(interactions_topic, "interactions, the input", partitions, replication, "delete"),
        TopicSpec(
            recommendations_topic, "the latest list of each user", partitions, replication, "compact", _COMPACTED_DAILY
        ),
        TopicSpec(changelog_topic(app), "every user's state", partitions, replication, "compact", _COMPACTED_DAILY),
        TopicSpec(
            dead_letter_topic(app),
            "refused records, each with its reason",
            partitions,
            replication,
            "delete",
            holds=interactions_topic,
        ),
        TopicSpec(models_topic(app), "promoted model versions", 1, replication, "compact"),
    ]


def width(admin: AdminClient, app: str, interactions_topic: str) -> int | None:
    """The number of partitions that the application has: the input's, or else the changelog's. None without either.

    Raises:
        KafkaException: the broker does not answer.
    """
    found = topics_found(admin)
    return next((found[name].partitions for name in (interactions_topic, changelog_topic(app)) if name in found), None)


def as_they_are(admin: AdminClient, topics: Sequence[TopicSpec]) -> dict[str, str]:
    """Name → partitions, replication and settings, in words, of each of the topics that exists.

    Raises:
        KafkaException: the broker does not answer.
    """
    found = topics_found(admin)
    present = [topic for topic in topics if topic.name in found]
    configs = settings_of(admin, [topic.name for topic in present])
    return {topic.name: _in_words(topic, found[topic.name], configs[topic.name]) for topic in present}


def _in_words(topic: TopicSpec, found: Found, config: Shown) -> str:
    shown = (
        [f"settings not shown ({config})"]
        if isinstance(config, str)
        else [f"{name}={config.get(name, 'not set')}" for name in topic.config]
    )
    return ", ".join([counted_partitions(found.partitions), f"replication {found.replication}", *shown])


def create(admin: AdminClient, topics: Sequence[TopicSpec]) -> list[Outcome]:
    """Create missing topics, and leave existing ones as they are. Outcomes are in the order of `topics`.

    Raises:
        KafkaException: the broker does not answer.
    """
    outcomes = _create(admin, [topic for topic in topics if topic.holds is None])
    # Once the others exist, Kafka knows how large their records may be.
    outcomes |= _create(admin, [_holding(admin, topic) for topic in topics if topic.holds is not None])
    return [outcomes[topic.name] for topic in topics]


def _holding(admin: AdminClient, topic: TopicSpec) -> TopicSpec:
    """The topic, with the limit that the other topic's records need; as it is if Kafka does not show theirs."""
    limit = None if topic.holds is None else largest_batches(admin, [topic.holds])[topic.holds]
    if limit is None:
        return topic
    return replace(topic, settings=(*topic.settings, (LARGEST, str(with_headers(limit)))))


def with_headers(limit: int) -> int:
    return min(limit + LETTER_HEADERS_BYTES, 2**31 - 1)


def _create(admin: AdminClient, topics: Sequence[TopicSpec]) -> dict[str, Outcome]:
    existing = topics_found(admin)
    missing = [topic for topic in topics if topic.name not in existing]
    futures = (
        admin.create_topics(
            [NewTopic(t.name, t.partitions, t.replication or -1, config=t.config) for t in missing],
            operation_timeout=ANSWERS_WITHIN_S,
            request_timeout=ANSWERS_WITHIN_S,
        )
        if missing
        else {}
    )
    outcomes = []
    for topic in topics:
        if topic.name not in futures:
            outcomes.append(Outcome(topic, "exists"))
            continue
        try:
            futures[topic.name].result()
        except KafkaException as error:
            # Somebody else created it a moment ago, for example a second init job of the deployment. That is no error.
            reason = kafka_error(error)
            exists = reason.code() == KafkaError.TOPIC_ALREADY_EXISTS
            outcomes.append(Outcome(topic, "exists") if exists else Outcome(topic, "refused", _refusal(topic, reason)))
        else:
            outcomes.append(Outcome(topic, "created"))
    _wait_until_listed(admin, {outcome.topic.name for outcome in outcomes if outcome.result == "created"})
    return {outcome.topic.name: outcome for outcome in outcomes}


def _refusal(topic: TopicSpec, reason: KafkaError) -> str:
    if reason.code() in NOT_ALLOWED:
        return Right("topic", topic.name, "Create", "creating it").line()
    return str(reason.str())


def _wait_until_listed(admin: AdminClient, names: set[str]) -> None:
    """Wait until new topics are listed, so that the next caller finds them."""
    deadline = time.monotonic() + ANSWERS_WITHIN_S
    while not names <= topics_found(admin).keys() and time.monotonic() < deadline:
        time.sleep(0.05)


def counted_partitions(partitions: int) -> str:
    return f"{partitions} partition{'' if partitions == 1 else 's'}"
