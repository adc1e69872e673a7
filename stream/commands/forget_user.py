"""`rec2pm user forget`: what is stored of a user, the null value that makes a worker forget them, and whether one did.

The worker that reads a null value deletes everything it stores of the user and withdraws their list, in one transaction
(`stream.decode`). This file sends the null value and looks for its effect in the changelog.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from state.codec import FOLDED, PREFERENCE, WORKING, read_preference, taken_of, user_of, user_prefix
from stream.commands.output import counted
from stream.errors import KafkaUnusable
from stream.kafka.known_partitioners import Expected
from stream.kafka.partitioner import partition_of
from stream.kafka.read_topic import committed_records, partitions, waiting_behind
from stream.keys import KeyFormat

_ANSWERS_WITHIN_S: Final = 30.0
_ASK_EVERY_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Application:
    """The topics of an application, and how to connect to its Kafka."""

    kafka: Mapping[str, Any]
    app: str
    interactions: str
    recommendations: str
    changelog: str
    keys: KeyFormat
    partitioner: Expected


@dataclass(frozen=True, slots=True)
class UserRecords:
    """What one partition of the changelog stores of a user."""

    partition: int
    records: int
    first_offset: int
    """Of the oldest of the records."""
    interactions: int
    folds: int
    kept_segments: int


@dataclass(frozen=True, slots=True)
class InChangelog:
    """What the changelog stores of a user, and how far it was read: partition → the offset after its last record."""

    stored: Sequence[UserRecords]
    read_to: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Found:
    """What is stored of a user, and where a null value has to go."""

    before: InChangelog
    list_partition: int | None
    """The partition of the recommendations that holds a list for the user."""
    send_to: Sequence[int]
    """The partitions of the interactions that get the null value."""


class Outcome(Enum):
    """What the changelog says after the null value was sent."""

    FORGOTTEN = auto()
    ACTIVE_AGAIN = auto()
    """Forgotten; what came after the null value is stored."""
    NOT_YET = auto()
    """No worker has processed the null value in time."""
    RECORDS_LEFT = auto()
    """Workers have gone past the null value, and records from before it are still there."""


def find(application: Application, user: bytes) -> Found:
    """Look for everything that is stored of a user. Raises ValueError if no key is this user."""
    kafka, key = application.kafka, application.keys.key(user.decode())
    before = look(kafka, application.changelog, user, partitions(kafka, application.changelog))
    # Where the user's interactions go, and wherever something of them is stored. Where producers choose in their own
    # way, that may be any partition. A null value does no harm where the user is unknown.
    numbers = partitions(kafka, application.interactions)
    homes = (
        numbers if application.partitioner == "ignore" else [partition_of(key, len(numbers), application.partitioner)]
    )
    send_to = sorted({*homes, *(each.partition for each in before.stored)})
    return Found(before, _list_partition(kafka, application.recommendations, key), send_to)


def look(kafka: Mapping[str, Any], changelog: str, user: bytes, numbers: Sequence[int]) -> InChangelog:
    """Read partitions of the changelog for a user. One partition stores them, unless producers disagree about where
    users go.
    """
    stored = []
    read_to = {}
    prefix = user_prefix(user)
    for number in numbers:
        live: dict[bytes, Message] = {}
        read_to[number] = 0
        for message in committed_records(kafka, changelog, number):
            read_to[number] = (message.offset() or 0) + 1
            key = message.key() or b""
            if key.startswith(prefix):
                live.pop(key, None)
                if message.value() is not None:
                    live[key] = message
        if live:
            stored.append(_user_records(number, live))
    return InChangelog(stored, read_to)


def _user_records(number: int, live: Mapping[bytes, Message]) -> UserRecords:
    by_kind: dict[bytes, list[tuple[bytes, bytes]]] = {}
    for key, message in live.items():
        rest = user_of(key)[1]
        by_kind.setdefault(rest[:1], []).append((rest, message.value() or b""))
    preference = [read_preference(value) for rest, value in by_kind.get(PREFERENCE, []) if rest == PREFERENCE]
    return UserRecords(
        partition=number,
        records=len(live),
        first_offset=min(message.offset() or 0 for message in live.values()),
        interactions=max((taken_of(rest) for rest, _ in by_kind.get(WORKING, [])), default=0),
        folds=preference[0].folds if preference else 0,
        kept_segments=len(by_kind.get(FOLDED, [])),
    )


def _list_partition(kafka: Mapping[str, Any], recommendations: str, key: bytes) -> int | None:
    """The partition that holds a list for the user; None when there is no list, or it is withdrawn."""
    number = partition_of(key, len(partitions(kafka, recommendations)))
    has_list = False
    for message in committed_records(kafka, recommendations, number):
        if message.key() == key:
            has_list = message.value() is not None
    return number if has_list else None


def send(application: Application, user: bytes, numbers: Sequence[int]) -> dict[int, int]:
    """Send a null value for the user to each of the partitions; returns partition → its offset.

    Raises:
        KafkaUnusable: Kafka did not accept one of them.
    """
    offsets: dict[int, int] = {}
    failed: list[str] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is None:
            offsets[message.partition() or 0] = message.offset() or 0
        else:
            failed.append(error.str())

    key = application.keys.key(user.decode())
    producer = Producer({**application.kafka, "enable.idempotence": True})
    for number in numbers:
        producer.produce(application.interactions, None, key, number, on_delivery=delivered)
    if producer.flush(_ANSWERS_WITHIN_S) or failed:
        reason = (failed or [f"no answer within {_ANSWERS_WITHIN_S:.0f} s"])[0]
        raise KafkaUnusable(f"{application.interactions} did not accept the null value: {reason}")
    return offsets


def wait_until_forgotten(
    application: Application,
    user: bytes,
    before: InChangelog,
    offsets: Mapping[int, int],
    *,
    wait_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Outcome:
    """Wait until workers have gone past the null values, then look at what the changelog stores.

    Args:
        before: what the changelog stored before the null values were sent.
        offsets: where they are.
    """
    if not _workers_went_past(application, offsets, wait_s, clock, sleep):
        return Outcome.NOT_YET
    return outcome(before, look(application.kafka, application.changelog, user, list(offsets)))


def held_back(application: Application, offsets: Mapping[int, int]) -> list[str]:
    """Which of the null values no worker can read now, and why."""
    found = [
        waiting_behind(application.kafka, application.interactions, number, offset)
        for number, offset in offsets.items()
    ]
    return [str(each) for each in found if each is not None]


def outcome(before: InChangelog, after: InChangelog) -> Outcome:
    """What the changelog says once workers have gone past the null values."""
    if any(each.first_offset < before.read_to[each.partition] for each in after.stored):
        return Outcome.RECORDS_LEFT
    return Outcome.ACTIVE_AGAIN if after.stored else Outcome.FORGOTTEN


def _workers_went_past(
    application: Application,
    offsets: Mapping[int, int],
    wait_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> bool:
    # A consumer that never joins; read_uncommitted, so that the call does not wait for a step that is under way.
    consumer = Consumer(
        {**application.kafka, "group.id": application.app, "isolation.level": "read_uncommitted", "log_level": 3}
    )
    asked = [TopicPartition(application.interactions, number) for number in offsets]
    deadline = clock() + wait_s
    try:
        while not _all_past(consumer, asked, offsets):
            if clock() > deadline:
                return False
            sleep(_ASK_EVERY_S)
    finally:
        consumer.close()
    return True


def _all_past(consumer: Consumer, asked: list[TopicPartition], offsets: Mapping[int, int]) -> bool:
    try:
        return all(each.offset > offsets[each.partition] for each in consumer.committed(asked, timeout=5.0))
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            raise
        return False  # the group's coordinator is being made, or moved


def found_lines(application: Application, user: str, found: Found) -> list[str]:
    """What is stored of the user."""
    lines = [
        f"{application.changelog}[{each.partition}]: {counted(each.interactions, 'interaction')} remembered, "
        f"{counted(each.folds, 'segment')} folded, {each.kept_segments} of them kept "
        f"({counted(each.records, 'changelog record')})"
        for each in found.before.stored
    ] or [f"nothing is remembered about user {user!r}"]
    if found.list_partition is not None:
        lines.append(f"{application.recommendations}[{found.list_partition}]: holds a list for the user")
    return lines


def preview_lines(application: Application, found: Found) -> list[str]:
    """What --execute would send."""
    targets = ", ".join(f"{application.interactions}[{number}]" for number in found.send_to)
    return [f"would send a null value to {targets}", "nothing was sent: add --execute to send"]


def sent_line(application: Application, offsets: Mapping[int, int]) -> str:
    places = ", ".join(f"{application.interactions}[{number}]@{offset}" for number, offset in sorted(offsets.items()))
    return f"sent a null value to {places}"


def outcome_line(application: Application, result: Outcome, wait_s: float) -> str:
    """The last line: whether the user is forgotten."""
    return {
        Outcome.FORGOTTEN: "forgotten",
        Outcome.ACTIVE_AGAIN: "forgotten; the user has been active since, and those interactions are remembered",
        Outcome.NOT_YET: f"not forgotten yet: no worker of {application.app} has processed the null value within "
        f"{wait_s:g} s; the next worker that runs will",
        Outcome.RECORDS_LEFT: f"not forgotten: workers have processed the null value, but {application.changelog} still "
        "has records from before it",
    }[result]
