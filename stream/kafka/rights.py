"""The rights that each command needs in Kafka, and which of them these credentials lack.

Kafka itself says what is allowed (*authorized operations* of a topic or a group). It says nothing about transactional
ids: `may_not_publish` tries one.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Literal

from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from stream.kafka import names
from stream.kafka.errors import NOT_ALLOWED, comes_back
from stream.kafka.names import Names, changelog_topic, dead_letter_topic, models_topic
from stream.kafka.options import logger_of_command

Kind = Literal["topic", "group", "transactional id"]
Operation = Literal["Read", "Write", "Describe", "DescribeConfigs", "Create", "Delete"]
"""As kafka-acls.sh names them."""

ANSWERS_WITHIN_S: Final = 30.0
_CALL_S: Final = 5.0
_AGAIN_AFTER_S: Final = 0.1
_OPERATIONS: Final[Mapping[Operation, AclOperation]] = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
    "Create": AclOperation.CREATE,
    "Delete": AclOperation.DELETE,
}


@dataclass(frozen=True, slots=True)
class Right:
    """One operation on one resource. Read and Write include Describe."""

    kind: Kind
    name: str
    """A name, or a prefix and `*`."""
    operation: Operation
    purpose: str
    """What needs it."""
    optional: bool = False
    """True if the command does its work without it, and only a check is left out."""

    def line(self) -> str:
        """The missing right for people: what is missing, what needs it, and the command that grants it."""
        option = self.kind.replace(" ", "-")
        named = (
            f"--resource-pattern-type prefixed --{option} {self.name.removesuffix('*')}"
            if self.name.endswith("*")
            else f"--{option} {self.name}"
        )
        return (
            f"no right {self.operation} on {self.kind} {self.name} ({self.purpose}): allow it with `kafka-acls.sh --bootstrap-server HOST:PORT --add "
            f"--allow-principal User:NAME --operation {self.operation} {named}`"
        )


def of_worker(on: Names) -> list[Right]:
    """What a worker needs."""
    return [
        Right("topic", on.interactions, "Read", "the input"),
        Right("topic", on.recommendations, "Write", "lists"),
        Right("topic", changelog_topic(on.app), "Read", "restoring state"),
        Right("topic", changelog_topic(on.app), "Write", "publishing state"),
        Right("topic", dead_letter_topic(on.app), "Write", "refused records"),
        Right("topic", models_topic(on.app), "Read", "following promotions"),
        Right("topic", models_topic(on.app), "Write", "reporting what it serves"),
        *(Right("topic", each, "DescribeConfigs", "the check of topic settings", optional=True) for each in on.topics),
        Right("group", on.app, "Read", "sharing the input"),
        Right("group", names.reader_group(on.app), "Read", "restoring state"),
        Right("transactional id", names.worker_id(on.app, "*"), "Write", "publishing exactly once"),
    ]


def of_topics_create(on: Names) -> list[Right]:
    """What creates the topics. Kafka also takes the right Create on the cluster."""
    return [
        *(Right("topic", each, "Create", "creating it") for each in on.topics),
        *(Right("topic", each, "Describe", "saying what is there") for each in on.topics),
        *(Right("topic", each, "DescribeConfigs", "the check of topic settings", optional=True) for each in on.topics),
    ]


def of_reset(on: Names, *, interactions: bool, groups: Sequence[str] | None = None) -> list[Right]:
    """What removes everything. `groups`: those that there are; None: any that an application may have."""
    topics = [each for each in on.topics if interactions or each != on.interactions]
    named = (on.app, f"{on.app}.*") if groups is None else groups
    return [
        *(Right("topic", each, "Delete", "removing it") for each in topics),
        *(Right("group", each, "Describe", "seeing who is in it") for each in named),
        *(Right("group", each, "Delete", "removing its offsets") for each in named),
    ]


def of_produce(on: Names) -> list[Right]:
    return [Right("topic", on.interactions, "Write", "sending interactions")]


def of_produce_resume(on: Names, run: str) -> list[Right]:
    return [
        _reading(
            on.interactions, "noting what was sent"
        ),  # who commits an offset of a topic must be allowed to read it
        *of_produce(on),
        Right("group", names.produce_id(on.app, run), "Read", "noting what was sent"),
        publishing_run(on.app, run),
    ]


def of_interactions_export(app: str, topic: str) -> list[Right]:
    return [_reading(topic, "reading interactions"), Right("group", names.reader_group(app), "Read", "reading topics")]


def of_states(on: Names) -> list[Right]:
    """`user show` and `state export`."""
    return [_reading(changelog_topic(on.app), "reading state"), _reader(on)]


def of_state_import(on: Names, *, execute: bool) -> list[Right]:
    looking = [
        _reading(changelog_topic(on.app), "seeing whether it is empty"),
        _reader(on),
        Right("topic", on.interactions, "Read", "finding its end"),
        Right("group", on.app, "Read" if execute else "Describe", "saying where workers go on"),
    ]
    if not execute:
        return looking
    return [
        *looking,
        Right("topic", changelog_topic(on.app), "Write", "writing states"),
        publishing_states(on.app),
    ]


def of_user_forget(on: Names, *, execute: bool) -> list[Right]:
    return [
        _reading(changelog_topic(on.app), "reading state"),
        _reading(on.recommendations, "looking for the user's list"),
        _reader(on),
        Right("topic", on.interactions, "Write", "sending the null value")
        if execute
        else Right("topic", on.interactions, "Describe", "finding the user's partition"),
        *([Right("group", on.app, "Describe", "seeing whether a worker has forgotten the user")] if execute else []),
    ]


def of_dead_letters(on: Names) -> list[Right]:
    """`dead-letters list`, `show`, and a replay that only says what it would send."""
    return [
        _reading(dead_letter_topic(on.app), "reading dead letters"),
        _reader(on),
        Right("group", names.replay_group(on.app), "Describe", "seeing what was replayed"),
    ]


def of_replay(on: Names) -> list[Right]:
    return [
        _reading(dead_letter_topic(on.app), "reading dead letters"),
        _reader(on),
        Right("group", names.replay_group(on.app), "Read", "noting what was replayed"),
        Right("topic", on.interactions, "Write", "sending records again"),
        publishing_replays(on.app),
    ]


def of_models(on: Names) -> list[Right]:
    """Those of `models` that only read what was promoted."""
    return [_reading(models_topic(on.app), "reading promotions"), _reader(on)]


def of_models_history_of_user(on: Names) -> list[Right]:
    return [
        *of_models(on),
        _reading(changelog_topic(on.app), "reading which versions served"),
        Right("topic", on.interactions, "Describe", "finding the user's partition"),
    ]


def of_explain(on: Names) -> list[Right]:
    return [
        *of_models(on),
        _reading(changelog_topic(on.app), "reading which versions served, and the user's state"),
        _reading(on.interactions, "reading the user's interactions"),
    ]


def of_models_status(on: Names) -> list[Right]:
    return [*of_models(on), Right("group", on.app, "Describe", "seeing which workers are there")]


def of_promotion(on: Names) -> list[Right]:
    return [
        *of_models(on),
        Right("topic", models_topic(on.app), "Write", "promoting"),
        publishing_promotions(on.app),
    ]


def of_gate(on: Names) -> list[Right]:
    """`models promote --dry-run`."""
    return [*of_models(on), _reading(on.interactions, "looking at the newest interactions")]


def of_promote(on: Names) -> list[Right]:
    return [*of_promotion(on), _reading(on.interactions, "looking at the newest interactions")]


def of_trainer(on: Names, *, promote: bool) -> list[Right]:
    return [
        _reading(on.interactions, "collecting interactions"),
        Right("group", names.trainer_group(on.app), "Read", "collecting interactions"),
        *(of_promotion(on) if promote else of_models(on)),
    ]


def of_view(on: Names, name: str) -> list[Right]:
    return [
        _reading(on.recommendations, "reading lists"),
        Right("group", names.view_group(on.app, name), "Read", "reading lists"),
    ]


def of_view_users(on: Names, name: str) -> list[Right]:
    """`view --users`."""
    return [
        *of_view(on, name),
        _reading(changelog_topic(on.app), "reading what is remembered"),
        _reading(models_topic(on.app), "reading what workers serve"),
        _reader(on),
        Right("group", on.app, "Describe", "seeing which workers are there"),
        Right("topic", on.interactions, "Describe", "seeing how far workers are behind"),
    ]


COMMANDS: Final[Mapping[str, Callable[[Names], list[Right]]]] = {
    "worker": of_worker,
    "topics create": of_topics_create,
    "topics check": of_worker,
    "reset --execute": lambda on: of_reset(on, interactions=False),
    "reset --execute --interactions": lambda on: of_reset(on, interactions=True),
    "produce": of_produce,
    "produce --resume": lambda on: of_produce_resume(on, "*"),
    "interactions export": lambda on: of_interactions_export(on.app, on.interactions),
    "replay --from-kafka": lambda on: of_interactions_export(on.app, on.interactions),
    "replay --as-served": of_models_history_of_user,
    "explain": of_explain,
    "user show": of_states,
    "state export": of_states,
    "state import --execute": lambda on: of_state_import(on, execute=True),
    "state import": lambda on: of_state_import(on, execute=False),
    "user forget --execute": lambda on: of_user_forget(on, execute=True),
    "user forget": lambda on: of_user_forget(on, execute=False),
    "dead-letters list": of_dead_letters,
    "dead-letters show": of_dead_letters,
    "dead-letters replay": of_dead_letters,
    "dead-letters replay --execute": of_replay,
    "models list": of_models,
    "models show": of_models,
    "models verify": of_models,
    "models diff": of_models,
    "models promote": of_promote,
    "models promote --dry-run": of_gate,
    "models rollback": of_promotion,
    "models status": of_models_status,
    "models history": of_models,
    "models history --user": of_models_history_of_user,
    "trainer": lambda on: of_trainer(on, promote=False),
    "trainer --promote": lambda on: of_trainer(on, promote=True),
    "view": lambda on: of_view(on, "*"),
    "view --users": lambda on: of_view_users(on, "*"),
}
"""What each command needs. docs/operate.md has this table; a test compares them."""


def _reading(topic: str, purpose: str) -> Right:
    return Right("topic", topic, "Read", purpose)


def _reader(on: Names) -> Right:
    return Right("group", names.reader_group(on.app), "Read", "reading topics")


def publishing_replays(app: str) -> Right:
    """The right to the transactional id of a replay, which Kafka only tells when it is used."""
    return Right("transactional id", names.replay_id(app), "Write", "sending each record once")


def publishing_promotions(app: str) -> Right:
    """The right to the transactional id of a promotion, which Kafka only tells when it is used."""
    return Right("transactional id", names.promote_id(app), "Write", "one promotion at a time")


def publishing_states(app: str) -> Right:
    """The right to the transactional id of an import, which Kafka only tells when it is used."""
    return Right("transactional id", names.import_id(app), "Write", "one import at a time")


def publishing_run(app: str, run: str) -> Right:
    """The right to the transactional id of a run of `produce`, which Kafka only tells when it is used."""
    return Right("transactional id", names.produce_id(app, run), "Write", "sending each interaction once")


def missing(admin: AdminClient, needed: Iterable[Right]) -> list[Right]:
    """The rights among `needed` that Kafka says it does not give to these credentials.

    Transactional ids are not asked about, nor is a topic that does not exist, nor a broker that cannot say.

    Raises:
        KafkaException: Kafka did not answer.
    """
    needed = list(needed)
    topics = _topic_operations(admin, sorted({right.name for right in needed if right.kind == "topic"}))
    groups = {name: _group_operations(admin, name) for name in sorted({r.name for r in needed if r.kind == "group"})}
    lacking = []
    for right in needed:
        allowed = topics.get(right.name) if right.kind == "topic" else None
        if right.kind == "group":
            allowed = groups[right.name]
        # Create is asked about by creating: a topic that exists need not be created.
        if allowed is None or right.operation == "Create" or _OPERATIONS[right.operation] in allowed:
            continue
        # Of a topic that may not be seen, Kafka does not say what else is allowed.
        if allowed or not right.optional:
            lacking.append(right)
    return lacking


def may_not_publish(options: Mapping[str, Any], app: str) -> Right | None:
    """The right to publish in transactions, if it is missing. Kafka is asked with the id of a worker without a name,
    which no worker has.

    Raises:
        KafkaException: Kafka did not answer.
    """
    producer = Producer({**options, "transactional.id": names.worker_id(app, "")}, logger=logger_of_command())
    deadline = time.monotonic() + ANSWERS_WITHIN_S
    while True:
        try:
            producer.init_transactions(1.0)
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
                return Right("transactional id", names.worker_id(app, "*"), "Write", "publishing exactly once")
            if not (reason.retriable() or comes_back(reason)) or time.monotonic() > deadline:
                raise
        else:
            return None


def _topic_operations(admin: AdminClient, topics: Sequence[str]) -> dict[str, set[AclOperation]]:
    """What is allowed on each topic. A topic is left out if it does not exist, or if the broker cannot say."""
    if not topics:
        return {}
    asked = admin.describe_topics(
        TopicCollection(list(topics)), include_authorized_operations=True, request_timeout=_CALL_S
    )
    return {topic: found for topic, future in asked.items() if (found := _operations(future)) is not None}


def _group_operations(admin: AdminClient, group: str) -> set[AclOperation] | None:
    """What is allowed on a group; None if the broker cannot say."""
    deadline = time.monotonic() + ANSWERS_WITHIN_S
    while True:
        (future,) = admin.describe_consumer_groups(
            [group], include_authorized_operations=True, request_timeout=_CALL_S
        ).values()
        try:
            return _operations(future)
        except KafkaException as error:
            # On a new Kafka the group's coordinator is made by the first question.
            if not comes_back(error.args[0]) or time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_AFTER_S)


def _operations(future: "Future[Any]") -> set[AclOperation] | None:
    try:
        found = future.result(2 * _CALL_S).authorized_operations
    except TimeoutError:  # a broker that closes the connection on an unknown call leaves the future open
        return None
    except KafkaException as error:
        reason: KafkaError = error.args[0]
        if reason.code() in NOT_ALLOWED:
            return set()
        if comes_back(reason):
            raise
        return None
    # Nothing at all: the broker does not know the question, because seeing the topic is allowed.
    return set(found) if found else None
