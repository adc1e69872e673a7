"""The application's topics: their names and settings, creating them, and what is wrong with them.

Plans, outcomes and problems are values; the commands print them. Nothing here deletes or alters an existing topic.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigEntry, ConfigResource, NewTopic, ResourceType

from stream.kafka.errors import NOT_ALLOWED
from stream.kafka.names import Names
from stream.kafka.names import changelog_topic as changelog_topic
from stream.kafka.names import dead_letter_topic as dead_letter_topic
from stream.kafka.names import models_topic as models_topic
from stream.kafka.rights import Right, may_not_publish, missing, of_worker
from stream.wire import LETTER_HEADERS_BYTES

ANSWERS_WITHIN_S = 15.0
_DELETIONS_KEPT_MS = 86_400_000

CleanupPolicy = Literal["compact", "delete"]

_LARGEST = "max.message.bytes"
_COMPACTION_LAG = "max.compaction.lag.ms"
_DAY_MS = 86_400_000
_LONGEST_COMPACTION_LAG_MS = 7 * _DAY_MS
_COMPACTED_DAILY = ((_COMPACTION_LAG, str(_DAY_MS)),)
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


@dataclass(frozen=True, slots=True)
class Problem:
    """One line about a problem. `error`: a worker must not start; `warning`: it deserves a look."""

    topic: str
    """The topic or the group that has it."""
    severity: Literal["error", "warning"]
    line: str


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
        TopicSpec(models_topic(app), "promoted model versions, not used yet", 1, replication, "compact"),
    ]


def width(admin: AdminClient, app: str, interactions_topic: str) -> int | None:
    """The number of partitions that the application has: the input's, or else the changelog's. None without either.

    Raises:
        KafkaException: the broker does not answer.
    """
    found = _found(admin)
    return next((found[name].partitions for name in (interactions_topic, changelog_topic(app)) if name in found), None)


def as_they_are(admin: AdminClient, topics: Sequence[TopicSpec]) -> dict[str, str]:
    """Name → partitions, replication and settings, in words, of each of the topics that exists.

    Raises:
        KafkaException: the broker does not answer.
    """
    found = _found(admin)
    present = [topic for topic in topics if topic.name in found]
    configs = _configs(admin, [topic.name for topic in present])
    return {topic.name: _in_words(topic, found[topic.name], configs[topic.name]) for topic in present}


def _in_words(topic: TopicSpec, found: _Found, config: Mapping[str, str] | str) -> str:
    shown = (
        [f"settings not shown ({config})"]
        if isinstance(config, str)
        else [f"{name}={config.get(name, 'not set')}" for name in topic.config]
    )
    return ", ".join([_counted(found.partitions), f"replication {found.replication}", *shown])


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
    return replace(topic, settings=(*topic.settings, (_LARGEST, str(_with_headers(limit)))))


def _with_headers(limit: int) -> int:
    return min(limit + LETTER_HEADERS_BYTES, 2**31 - 1)


def _create(admin: AdminClient, topics: Sequence[TopicSpec]) -> dict[str, Outcome]:
    existing = _found(admin)
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
            reason = _kafka_error(error)
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
    while not names <= _found(admin).keys() and time.monotonic() < deadline:
        time.sleep(0.05)


def check(admin: AdminClient, app: str, interactions_topic: str, recommendations_topic: str) -> list[Problem]:
    """What is wrong with the topics on the broker, and which rights these credentials lack for a worker, errors first.

    A worker starts when there is no error.

    Raises:
        KafkaException: the broker does not answer.
    """
    found = _found(admin)
    lacking = missing(admin, of_worker(Names(app, interactions_topic, recommendations_topic)))
    width = found[interactions_topic].partitions if interactions_topic in found else None
    wanted = plan(app, interactions_topic, recommendations_topic, width or 1, None)
    present = [topic for topic in wanted if topic.name in found]
    configs = _configs(admin, [topic.name for topic in present])

    problems = [_missing_right(right) for right in lacking]
    hidden = {right.name for right in lacking}
    problems += [
        _error(
            topic,
            f"topic {topic.name} ({topic.purpose}) is missing, or these credentials may not see it: "
            "`rec2pm topics create` creates missing topics",
        )
        for topic in wanted
        if topic.name not in found and topic.name not in hidden
    ]
    unseen = {right.name for right in lacking if right.operation == "DescribeConfigs"}
    for topic in present:
        if width is not None and topic.name == changelog_topic(app):
            problems += _wrong_width(topic, found[topic.name].partitions, interactions_topic)
        if topic.name not in unseen:
            problems += _wrong_policy(topic, configs[topic.name], app, interactions_topic)
        problems += _compacted_too_late(topic, configs[topic.name])
        problems += _too_few_copies(topic, found[topic.name].replication, configs[topic.name])
        problems += _too_small(topic, configs)
    return sorted(
        problems, key=lambda problem: problem.severity
    )  # "error" before "warning"; the order of the plan within each


def largest_batches(admin: AdminClient, topics: Sequence[str]) -> dict[str, int | None]:
    """`max.message.bytes` of each topic: the largest batch of records it takes, compressed. None where Kafka does not
    show it.
    """
    configs = _configs(admin, topics)
    return {
        topic: None if isinstance(config, str) or (value := config.get(_LARGEST)) is None else int(value)
        for topic in topics
        for config in (configs[topic],)
    }


def check_transactions(options: Mapping[str, Any], app: str) -> list[Problem]:
    """Whether these credentials may publish in transactions, which Kafka only says when it is tried.

    The try makes a producer with a transactional id of its own, and disturbs no worker.

    Raises:
        KafkaException: the broker does not answer.
    """
    lacking = may_not_publish(options, app)
    return [] if lacking is None else [_missing_right(lacking)]


def deletions_kept_ms(admin: AdminClient, app: str) -> int:
    """How long the changelog keeps deletions, ms; Kafka's default if the broker does not show the setting."""
    topic = changelog_topic(app)
    config = _configs(admin, [topic])[topic]
    return int(
        (_DELETIONS_KEPT_MS if isinstance(config, str) else config.get("delete.retention.ms")) or _DELETIONS_KEPT_MS
    )


def _wrong_width(topic: TopicSpec, partitions: int, interactions_topic: str) -> list[Problem]:
    if partitions == topic.partitions:
        return []
    return [
        _error(
            topic,
            f"topic {topic.name} has {_counted(partitions)}, expected {topic.partitions} as {interactions_topic} has: "
            "choose another REC2PM_APP, or delete the topic and with it every user's state, then run "
            "`rec2pm topics create`",
        )
    ]


def _wrong_policy(
    topic: TopicSpec, config: Mapping[str, str] | str, app: str, interactions_topic: str
) -> list[Problem]:
    value = config if isinstance(config, str) else config.get("cleanup.policy")
    if isinstance(config, str) or value is None:
        reason = f" ({config})" if isinstance(config, str) else ""
        return [
            _warning(
                topic,
                f"topic {topic.name}: the broker does not show its cleanup.policy{reason}, expected {topic.cleanup}: "
                "not checked",
            )
        ]
    policies = {policy.strip() for policy in value.split(",")}
    repair = f"set it with `kafka-configs.sh --alter --topic {topic.name} --add-config cleanup.policy={topic.cleanup}`"
    found = f"topic {topic.name} has cleanup.policy={value}, expected {topic.cleanup}"
    if topic.cleanup == "compact" and "compact" not in policies:
        forgotten = f"{found}, or {topic.purpose} would be forgotten with age: {repair}"
        # Deleted lists are made again; state and promotions are not.
        internal = topic.name in (changelog_topic(app), models_topic(app))
        return [_error(topic, forgotten) if internal else _warning(topic, forgotten)]
    if topic.name in (changelog_topic(app), models_topic(app)) and "delete" in policies:
        return [_error(topic, f"{found} alone, or {topic.purpose} would be forgotten with age: {repair}")]
    if topic.cleanup == "delete" and "compact" in policies:
        lost = f"{found}, or records with the same key would replace each other: {repair}"
        # The input may be compacted on purpose: perhaps only a user's newest interaction matters.
        return [_warning(topic, lost) if topic.name == interactions_topic else _error(topic, lost)]
    return []


def _compacted_too_late(topic: TopicSpec, config: Mapping[str, str] | str) -> list[Problem]:
    if (
        isinstance(config, str)
        or _COMPACTION_LAG not in topic.config
        or "compact" not in config.get("cleanup.policy", "")
    ):
        return []
    value = config.get(_COMPACTION_LAG)
    if value is not None and int(value) <= _LONGEST_COMPACTION_LAG_MS:
        return []
    wanted = topic.config[_COMPACTION_LAG]
    return [
        _warning(
            topic,
            f"topic {topic.name} has {_COMPACTION_LAG}={'not set' if value is None else value}, expected "
            f"{_LONGEST_COMPACTION_LAG_MS} (7 days) or less, or a forgotten user's data may stay in it for ever: "
            f"set it with `kafka-configs.sh --alter --topic {topic.name} --add-config {_COMPACTION_LAG}={wanted}`",
        )
    ]


def _too_few_copies(topic: TopicSpec, replication: int, config: Mapping[str, str] | str) -> list[Problem]:
    least = None if isinstance(config, str) else config.get("min.insync.replicas")
    if least is None or replication >= int(least):
        return []
    return [
        _error(
            topic,
            f"topic {topic.name} has replication {replication}, below its min.insync.replicas={least}, so that no write "
            f"can succeed: expected a replication of {least} or more; raise it with `kafka-reassign-partitions.sh`, or "
            "lower min.insync.replicas",
        )
    ]


def _too_small(topic: TopicSpec, configs: Mapping[str, Mapping[str, str] | str]) -> list[Problem]:
    """Whether the topic takes the records of the topic that it holds."""
    config, held = configs[topic.name], configs.get(topic.holds or "", "")
    if isinstance(config, str) or isinstance(held, str) or _LARGEST not in config or _LARGEST not in held:
        return []
    wanted = _with_headers(int(held[_LARGEST]))
    if int(config[_LARGEST]) >= wanted:
        return []
    return [
        _warning(
            topic,
            f"topic {topic.name} has {_LARGEST}={config[_LARGEST]}, expected {wanted} or more, as {topic.holds} has "
            f"{held[_LARGEST]}: a refused record that does not fit is kept without its value; set it with "
            f"`kafka-configs.sh --alter --topic {topic.name} --add-config {_LARGEST}={wanted}`",
        )
    ]


def _missing_right(right: Right) -> Problem:
    line = f"{right.line()}; not checked until then" if right.optional else right.line()
    return Problem(right.name, "warning" if right.optional else "error", line)


def _error(topic: TopicSpec, line: str) -> Problem:
    return Problem(topic.name, "error", line)


def _warning(topic: TopicSpec, line: str) -> Problem:
    return Problem(topic.name, "warning", line)


def _counted(partitions: int) -> str:
    return f"{partitions} partition{'' if partitions == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class _Found:
    partitions: int
    replication: int


def _found(admin: AdminClient) -> dict[str, _Found]:
    # This lists all topics. A request for one topic by name can make the broker create it.
    topics = admin.list_topics(timeout=ANSWERS_WITHIN_S).topics
    return {
        name: _Found(len(topic.partitions), min(len(partition.replicas) for partition in topic.partitions.values()))
        for name, topic in topics.items()
        if topic.error is None and topic.partitions
    }


def _configs(admin: AdminClient, topics: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
    """Each topic's configuration, or the reason why the broker does not show it (no permission, or an old broker)."""
    if not topics:
        return {}
    asked = admin.describe_configs(
        [ConfigResource(ResourceType.TOPIC, topic) for topic in topics], request_timeout=ANSWERS_WITHIN_S
    )
    configs: dict[str, Mapping[str, str] | str] = {}
    for resource, future in asked.items():
        try:
            entries: Mapping[str, ConfigEntry] = future.result(ANSWERS_WITHIN_S)
        except KafkaException as error:
            configs[resource.name] = _kafka_error(error).str()
        except TimeoutError:  # a broker that closes the connection on an unknown call leaves the future open
            configs[resource.name] = f"no answer within {ANSWERS_WITHIN_S:.0f} s"
        else:
            configs[resource.name] = {name: entry.value for name, entry in entries.items() if entry.value is not None}
    return configs


def _kafka_error(error: KafkaException) -> KafkaError:
    reason: KafkaError = error.args[0]
    return reason
