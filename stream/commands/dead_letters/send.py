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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from stream.commands.dead_letters.choose import Plan, Survey
from stream.commands.dead_letters.letters import Letter, headers_of
from stream.commands.dead_letters.notes import Replayed, encoded, noted
from stream.commands.dead_letters.read_notes import group
from stream.errors import Fenced, KafkaUnusable
from stream.kafka.read_topic import committed_records, partitions
from stream.wire import ATTEMPTS_HEADER, Refusal, refusal

BATCH_LETTERS: Final = 2000
_BATCH_BYTES: Final = 16 << 20
_CALL_S: Final = 30.0
_PATIENCE_S: Final = 60.0
_AGAIN_AFTER_S: Final = 0.1
_BY_KEY: Final = -1
"""As a partition: the partitioner chooses."""

PRODUCER: Final[Mapping[str, Any]] = {
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "linger.ms": 20,
    "transaction.timeout.ms": 60_000,
    "log_level": 3,  # that a coordinator is still loading is no news
}


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
