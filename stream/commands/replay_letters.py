"""`rec2pm dead-letters replay`: dead letters into the topic they came from once more.

The guarantee: a letter is sent once. Sending it and noting that it was sent are one Kafka transaction, so a replay may
be killed at any moment, run again, or run twice at a time (the second puts an end to the first), and readers of
committed records see the letter once. Only `again` sends it once more. A letter that is refused again comes back as
another letter, with a higher count of attempts.

What was sent is noted as the committed offset, with metadata, of the group `<app>.dead-letters`
(`stream.commands.replay_notes`). Kafka drops offsets that nobody renewed for `offsets.retention.minutes`, by default
seven days; each replay renews them. Where they are gone, letters younger than that cannot have been sent, and are;
older ones may have been, and are passed over.

What is sent has the original key, value and timestamp, the original headers, and how often it was refused; it goes to
the partition it was in, or by key where the topic has fewer by now.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from stream.commands.read_letters import Letter, Place, headers_of, kind, letters
from stream.commands.replay_notes import Replayed, decoded, encoded, noted
from stream.errors import Fenced, KafkaUnusable
from stream.kafka.read_topic import committed_records, partitions
from stream.wire import ATTEMPTS_HEADER, Refusal, refusal

BATCH_LETTERS: Final = 2000
_BATCH_BYTES: Final = 16 << 20
_CALL_S: Final = 30.0
_PATIENCE_S: Final = 60.0
_AGAIN_AFTER_S: Final = 0.1
_HOUR_MS: Final = 3_600_000
_BY_KEY: Final = -1
"""As a partition: the partitioner chooses."""
_SHORTEST_MEMORY_MS: Final = 24 * _HOUR_MS
"""Assumed where a broker does not tell how long it keeps offsets: the default before Kafka 2.0."""

PRODUCER: Final[Mapping[str, Any]] = {
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "linger.ms": 20,
    "transaction.timeout.ms": 60_000,
    "log_level": 3,  # that a coordinator is still loading is no news
}

Known: TypeAlias = Mapping[int, Replayed | None]
"""Partition → what was sent in again; None where Kafka has no note of it."""


class PassedOver(StrEnum):
    """Why a letter is not sent."""

    REPLAYED = "replayed already (--again to insist)"
    REFUSED_OFTEN = "refused too often (--max-attempts)"
    UNKNOWN = "so old that Kafka no longer knows whether they were replayed (--again to insist)"
    NOT_OURS = "without the headers that say where they came from"
    LATER = "beyond --limit"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters a replay is for."""

    places: frozenset[Place] | None = None
    """None: all."""
    reason: str | None = None
    """Only those whose reason has this in it."""
    max_attempts: int = 3
    limit: int | None = None
    """The oldest so many."""
    again: bool = False


@dataclass(frozen=True, slots=True)
class Survey:
    """All letters, and what is known of earlier replays."""

    letters: Sequence[Letter]
    known: Known
    known_since_ms: int
    """Where nothing is noted, letters that are newer than this were not sent."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a replay sends, in order, and how many of the wanted letters it does not."""

    send: Sequence[Letter]
    passed_over: Counter[PassedOver]

    def reasons(self) -> Counter[str]:
        return Counter(kind(each.refusal) for each in self.send)

    def topics(self) -> Counter[str]:
        return Counter(each.refusal.topic for each in self.send if each.refusal)


def group(app: str) -> str:
    """The consumer group whose offsets say which letters were replayed."""
    return f"{app}.dead-letters"


def survey(
    kafka: Mapping[str, Any],
    app: str,
    topic: str,
    now_ms: int,
    isolation: Literal["read_committed", "read_uncommitted"],
) -> Survey:
    """Read all letters up to the present end.

    Args:
        isolation: of the notes; read_committed waits for the end of a replay that is under way, read_uncommitted tells
            what was before it.
    """
    numbers = partitions(kafka, topic)
    known = remembered(kafka, app, topic, numbers, isolation)
    since = 0 if None not in known.values() else now_ms - _memory_ms(kafka) + _HOUR_MS
    return Survey(list(letters(kafka, topic, numbers)), known, since)


def choose(surveyed: Survey, wanted: Wanted) -> Plan:
    """Which of the letters are sent, and why the others are not; letters that nobody asked for are not counted."""
    send: list[Letter] = []
    passed_over = Counter[PassedOver]()
    for each in surveyed.letters:
        if wanted.places is not None and each.place not in wanted.places:
            continue
        if wanted.reason is not None and (each.refusal is None or wanted.reason not in each.refusal.message):
            continue
        why = _not_sent(each, surveyed, wanted)
        if why is None:
            send.append(each)
        else:
            passed_over[why] += 1
    send.sort(key=lambda each: (each.time_ms, each.place))
    if wanted.limit is not None and len(send) > wanted.limit:
        passed_over[PassedOver.LATER] = len(send) - wanted.limit
        del send[wanted.limit :]
    return Plan(sorted(send, key=lambda each: each.place), passed_over)


def _not_sent(each: Letter, surveyed: Survey, wanted: Wanted) -> PassedOver | None:
    known = surveyed.known.get(each.partition)
    if each.refusal is None:
        return PassedOver.NOT_OURS
    if not wanted.again and known is not None and each.offset in known:
        return PassedOver.REPLAYED
    if not wanted.again and known is None and each.time_ms < surveyed.known_since_ms:
        return PassedOver.UNKNOWN
    if each.refusal.attempts >= wanted.max_attempts:
        return PassedOver.REFUSED_OFTEN
    return None


def remembered(
    kafka: Mapping[str, Any],
    app: str,
    topic: str,
    numbers: Sequence[int],
    isolation: Literal["read_committed", "read_uncommitted"],
) -> dict[int, Replayed | None]:
    """What earlier replays noted, by partition."""
    # A consumer that never joins. AdminClient.list_consumer_group_offsets ends the process with a segmentation fault
    # (librdkafka 2.16.0) when the group's coordinator is not there yet.
    consumer = Consumer({**kafka, "group.id": group(app), "isolation.level": isolation, "log_level": 3})
    places = [TopicPartition(topic, number) for number in numbers]
    try:
        committed = _until_answered(lambda: consumer.committed(places, timeout=5.0))
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


def _memory_ms(kafka: Mapping[str, Any]) -> int:
    """How long a broker keeps offsets that nobody renews."""
    admin = AdminClient({**kafka, "log_level": 3})
    with suppress(KafkaException, TimeoutError):
        number = next(iter(admin.list_topics(timeout=_CALL_S).brokers))
        (told,) = admin.describe_configs(
            [ConfigResource(ResourceType.BROKER, str(number))], request_timeout=_CALL_S
        ).values()
        entry = told.result(_CALL_S).get("offsets.retention.minutes")
        if entry is not None and entry.value is not None:
            return int(entry.value) * 60_000
    return _SHORTEST_MEMORY_MS


def begin(kafka: Mapping[str, Any], app: str) -> Producer:
    """The producer of a replay. It ends another replay of the application that is under way, or that was killed: what
    that one sent without noting it is undone. So this comes before the survey."""
    producer = Producer({**PRODUCER, **kafka, "transactional.id": f"{app}-dead-letters-replay"})
    _until_done(lambda: producer.init_transactions(_CALL_S))
    return producer


def send(
    kafka: Mapping[str, Any],
    app: str,
    topic: str,
    producer: Producer,
    surveyed: Survey,
    plan: Plan,
    *,
    progress: Callable[[int, int], None],
    batch_letters: int = BATCH_LETTERS,
    before_commit: Callable[[], None] = lambda: None,
) -> int:
    """Send the plan's letters in, a transaction per batch; returns how many: fewer than planned when letters were
    deleted meanwhile.

    Args:
        topic: the dead letters'.
        producer: of `begin`, called before the survey.
        before_commit: called when a batch is sent, and is neither committed nor noted: for the tests.

    Raises:
        TopicsUnusable: a topic that letters came from is not there any more; nothing was sent.
        Fenced: another replay began.
        KafkaUnusable: a batch was not sent; those before it were, and are noted.
    """
    widths = {target: len(partitions(kafka, target)) for target in plan.topics()}
    offsets = {
        number: [each.offset for each in surveyed.letters if each.partition == number] for number in surveyed.known
    }
    notes: dict[int, Replayed] = {number: known or Replayed() for number, known in surveyed.known.items()}
    membership = _membership(kafka, app)
    sent = 0
    for number, batch in _batches(kafka, topic, plan.send, batch_letters):
        new = {message.offset() for message, _ in batch}
        before = notes[number]
        notes[number] = noted(
            offsets[number], {offset for offset in offsets[number] if offset in new or offset in before}
        )
        positions = [TopicPartition(topic, each, *encoded(replayed)) for each, replayed in notes.items()]
        try:
            producer.begin_transaction()
            for message, said in batch:
                _produce(producer, message, said, widths[said.topic])
            _until_done(lambda: producer.send_offsets_to_transaction(positions, membership, _CALL_S))  # noqa: B023  # called here and now
            before_commit()
            _until_done(lambda: producer.commit_transaction(_CALL_S))
        except KafkaException as error:
            raise _failed(producer, app, len(batch), error) from error
        sent += len(batch)
        progress(sent, len(plan.send))
    return sent


def _batches(
    kafka: Mapping[str, Any], topic: str, chosen: Sequence[Letter], size: int
) -> Iterator[tuple[int, list[tuple[Message, Refusal]]]]:
    """The letters read again, with their bytes, in batches of one partition each."""
    by_partition: dict[int, set[int]] = {}
    for each in chosen:
        by_partition.setdefault(each.partition, set()).add(each.offset)
    for number, waiting in by_partition.items():
        batch: list[tuple[Message, Refusal]] = []
        held = 0
        for message in committed_records(kafka, topic, number, min(waiting)):
            said = refusal(headers_of(message))
            if message.offset() not in waiting or said is None:
                continue
            waiting.discard(message.offset() or 0)
            batch.append((message, said))
            held += len(message.value() or b"")
            if len(batch) >= size or held >= _BATCH_BYTES:
                yield number, batch
                batch, held = [], 0
            if not waiting:
                break
        if batch:
            yield number, batch


def _membership(kafka: Mapping[str, Any], app: str) -> object:
    """Names the group to Kafka; nobody is a member of it, so nothing is fenced by it: the transactional id does
    that.
    """
    consumer = Consumer({**kafka, "group.id": group(app), "log_level": 3})
    try:
        return consumer.consumer_group_metadata()
    finally:
        consumer.close()


def _failed(producer: Producer, app: str, count: int, error: KafkaException) -> Exception:
    """End the transaction, where that is still ours to do."""
    reason: KafkaError = error.args[0]
    if reason.fatal() or reason.code() in (KafkaError._FATAL, KafkaError._FENCED):
        return Fenced(f"another replay of {app} began, and goes on in place of this one: {reason.str()}")
    with suppress(KafkaException):
        producer.abort_transaction(_CALL_S)
    if reason.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return KafkaUnusable(
            f"{count} dead letters were not sent: one of them is larger than the producer or its topic takes. Raise "
            "REC2PM_KAFKA_MESSAGE_MAX_BYTES and the topic's max.message.bytes, or name the others; those before them were sent, and are noted"
        )
    # A commit without an answer may have gone through.
    return KafkaUnusable(
        f"Kafka did not say that {count} dead letters were sent: {reason.str()}. What was sent is noted: run it again for the rest"
    )


def _produce(producer: Producer, message: Message, said: Refusal, width: int) -> None:
    headers: list[tuple[str, str | bytes | None]] = [*said.headers, (ATTEMPTS_HEADER, str(said.attempts).encode())]
    # A letter from before the timestamp was kept has its own, which is the closest there is.
    timestamp = message.timestamp()[1] if said.timestamp is None else said.timestamp
    to = said.partition if said.partition < width else _BY_KEY
    while True:
        try:
            producer.produce(said.topic, message.value(), message.key(), to, headers=headers, timestamp=timestamp)
        except BufferError:
            producer.poll(_AGAIN_AFTER_S)
        else:
            return


def _until_done(call: Callable[[], None]) -> None:
    """A retriable error asks for the same call again; it then goes on where it was."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return call()
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if not reason.retriable() or reason.fatal() or reason.txn_requires_abort() or time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_AFTER_S)
