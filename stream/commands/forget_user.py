"""`rec2pm user forget`: what is remembered of a user, the null value that forgets them, and whether a worker did.

The worker that takes a null value deletes everything it stores of the user and withdraws their list, in one transaction
(`stream.decode`). Here the null is sent, and its effect looked for in the changelog.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from state.codec import FOLDED, PREFERENCE, WORKING, read_preference, taken_of, user_of, user_prefix
from stream.errors import KafkaUnusable
from stream.kafka.partitioner import partition_of
from stream.kafka.read_topic import committed_records, partitions

_ANSWERS_WITHIN_S: Final = 30.0
_ASK_EVERY_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Known:
    """What the changelog holds of a user in one partition."""

    partition: int
    records: int
    first_offset: int
    """Of the oldest of them."""
    taken: int
    """Interactions remembered."""
    folds: int
    kept_segments: int


@dataclass(frozen=True, slots=True)
class Looked:
    """What is known of a user, and how far the changelog was read for it: partition → the offset behind its last
    record.
    """

    known: Sequence[Known]
    reached: Mapping[int, int]


def look(kafka: Mapping[str, Any], changelog: str, user: bytes, numbers: Sequence[int]) -> Looked:
    """Read partitions of the changelog for a user: one has them, unless producers disagree about where users go."""
    known = []
    reached = {}
    prefix = user_prefix(user)
    for number in numbers:
        live: dict[bytes, Message] = {}
        reached[number] = 0
        for message in committed_records(kafka, changelog, number):
            reached[number] = (message.offset() or 0) + 1
            key = message.key() or b""
            if key.startswith(prefix):
                live.pop(key, None)
                if message.value() is not None:
                    live[key] = message
        if live:
            known.append(_known(number, live))
    return Looked(known, reached)


def _known(number: int, live: Mapping[bytes, Message]) -> Known:
    by_kind: dict[bytes, list[tuple[bytes, bytes]]] = {}
    for key, message in live.items():
        rest = user_of(key)[1]
        by_kind.setdefault(rest[:1], []).append((rest, message.value() or b""))
    preference = [read_preference(value) for _, value in by_kind.get(PREFERENCE, [])]
    return Known(
        partition=number,
        records=len(live),
        first_offset=min(message.offset() or 0 for message in live.values()),
        taken=max((taken_of(rest) for rest, _ in by_kind.get(WORKING, [])), default=0),
        folds=preference[0].folds if preference else 0,
        kept_segments=len(by_kind.get(FOLDED, [])),
    )


def listed(kafka: Mapping[str, Any], recommendations: str, user: bytes) -> int | None:
    """The partition of the recommendations in which a list of the user is out; None when there is none, or it is
    withdrawn.
    """
    number = partition_of(user, len(partitions(kafka, recommendations)))
    out = False
    for message in committed_records(kafka, recommendations, number):
        if message.key() == user:
            out = message.value() is not None
    return number if out else None


def addressed(kafka: Mapping[str, Any], interactions: str, user: bytes, known: Sequence[Known]) -> list[int]:
    """The partitions that get a null: where the user's interactions go, and where there is something of them."""
    return sorted({partition_of(user, len(partitions(kafka, interactions))), *(each.partition for each in known)})


def send(kafka: Mapping[str, Any], interactions: str, user: bytes, numbers: Sequence[int]) -> dict[int, int]:
    """Send a null value for the user to each partition; returns partition → its offset.

    Raises:
        KafkaUnusable: one of them was not taken.
    """
    offsets: dict[int, int] = {}
    failed: list[str] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is None:
            offsets[message.partition() or 0] = message.offset() or 0
        else:
            failed.append(error.str())

    producer = Producer({**kafka, "enable.idempotence": True})
    for number in numbers:
        producer.produce(interactions, None, user, number, on_delivery=delivered)
    if producer.flush(_ANSWERS_WITHIN_S) or failed:
        raise KafkaUnusable(
            f"the null value was not taken by {interactions}: {(failed or [f'no answer in {_ANSWERS_WITHIN_S:.0f} s'])[0]}"
        )
    return offsets


def taken(
    kafka: Mapping[str, Any],
    app: str,
    interactions: str,
    offsets: Mapping[int, int],
    *,
    wait_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> bool:
    """Wait until the application's workers have committed past the offsets; False when they have not in `wait_s`."""
    # A consumer that never joins; read_uncommitted, so that a step that is under way is not waited for in the call.
    consumer = Consumer({**kafka, "group.id": app, "isolation.level": "read_uncommitted", "log_level": 3})
    places = [TopicPartition(interactions, number) for number in offsets]
    deadline = clock() + wait_s
    try:
        while not _all_past(consumer, places, offsets):
            if clock() > deadline:
                return False
            sleep(_ASK_EVERY_S)
    finally:
        consumer.close()
    return True


def _all_past(consumer: Consumer, places: list[TopicPartition], offsets: Mapping[int, int]) -> bool:
    try:
        return all(each.offset > offsets[each.partition] for each in consumer.committed(places, timeout=5.0))
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            raise
        return False  # the group's coordinator is being made, or moved
