"""What is wrong with the topics and the rights, seen from a worker."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from confluent_kafka.admin import AdminClient

from stream.kafka.names import Names, changelog_topic, models_topic
from stream.kafka.rights import Right, may_not_publish, missing, of_worker
from stream.kafka.shown_topics import LARGEST, Shown, settings_of, topics_found
from stream.kafka.topics import COMPACTION_LAG, TopicSpec, counted_partitions, plan, with_headers

_LONGEST_COMPACTION_LAG_MS: Final = 7 * 86_400_000


@dataclass(frozen=True, slots=True)
class Problem:
    """One line about a problem. `error`: a worker must not start; `warning`: it deserves a look."""

    topic: str
    """The topic or the group that has it."""
    severity: Literal["error", "warning"]
    line: str


def check(admin: AdminClient, app: str, interactions_topic: str, recommendations_topic: str) -> list[Problem]:
    """What is wrong with the topics on the broker, and which rights these credentials lack for a worker, errors first.

    A worker starts when there is no error.

    Raises:
        KafkaException: the broker does not answer.
    """
    found = topics_found(admin)
    lacking = missing(admin, of_worker(Names(app, interactions_topic, recommendations_topic)))
    width = found[interactions_topic].partitions if interactions_topic in found else None
    wanted = plan(app, interactions_topic, recommendations_topic, width or 1, None)
    present = [topic for topic in wanted if topic.name in found]
    configs = settings_of(admin, [topic.name for topic in present])

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


def check_transactions(options: Mapping[str, Any], app: str) -> list[Problem]:
    """Whether these credentials may publish in transactions, which Kafka only says when it is tried.

    The try makes a producer with a transactional id of its own, and disturbs no worker.

    Raises:
        KafkaException: the broker does not answer.
    """
    lacking = may_not_publish(options, app)
    return [] if lacking is None else [_missing_right(lacking)]


def _wrong_width(topic: TopicSpec, partitions: int, interactions_topic: str) -> list[Problem]:
    if partitions == topic.partitions:
        return []
    return [
        _error(
            topic,
            f"topic {topic.name} has {counted_partitions(partitions)}, expected {topic.partitions} as {interactions_topic} has: "
            "choose another REC2PM_APP, or delete the topic and with it every user's state, then run "
            "`rec2pm topics create`",
        )
    ]


def _wrong_policy(topic: TopicSpec, config: Shown, app: str, interactions_topic: str) -> list[Problem]:
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


def _compacted_too_late(topic: TopicSpec, config: Shown) -> list[Problem]:
    if (
        isinstance(config, str)
        or COMPACTION_LAG not in topic.config
        or "compact" not in config.get("cleanup.policy", "")
    ):
        return []
    value = config.get(COMPACTION_LAG)
    if value is not None and int(value) <= _LONGEST_COMPACTION_LAG_MS:
        return []
    wanted = topic.config[COMPACTION_LAG]
    return [
        _warning(
            topic,
            f"topic {topic.name} has {COMPACTION_LAG}={'not set' if value is None else value}, expected "
            f"{_LONGEST_COMPACTION_LAG_MS} (7 days) or less, or a forgotten user's data may stay in it for ever: "
            f"set it with `kafka-configs.sh --alter --topic {topic.name} --add-config {COMPACTION_LAG}={wanted}`",
        )
    ]


def _too_few_copies(topic: TopicSpec, replication: int, config: Shown) -> list[Problem]:
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


def _too_small(topic: TopicSpec, configs: Mapping[str, Shown]) -> list[Problem]:
    """Whether the topic takes the records of the topic that it holds."""
    config, held = configs[topic.name], configs.get(topic.holds or "", "")
    if isinstance(config, str) or isinstance(held, str) or LARGEST not in config or LARGEST not in held:
        return []
    wanted = with_headers(int(held[LARGEST]))
    if int(config[LARGEST]) >= wanted:
        return []
    return [
        _warning(
            topic,
            f"topic {topic.name} has {LARGEST}={config[LARGEST]}, expected {wanted} or more, as {topic.holds} has "
            f"{held[LARGEST]}: a refused record that does not fit is kept without its value; set it with "
            f"`kafka-configs.sh --alter --topic {topic.name} --add-config {LARGEST}={wanted}`",
        )
    ]


def _missing_right(right: Right) -> Problem:
    line = f"{right.line()}; not checked until then" if right.optional else right.line()
    return Problem(right.name, "warning" if right.optional else "error", line)


def _error(topic: TopicSpec, line: str) -> Problem:
    return Problem(topic.name, "error", line)


def _warning(topic: TopicSpec, line: str) -> Problem:
    return Problem(topic.name, "warning", line)
