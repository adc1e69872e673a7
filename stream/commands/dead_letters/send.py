"""Dead letters sent to the interactions topic again, in transactions that also note what was sent.

The guarantee: each letter is sent once. Sending a letter and noting that it was sent are one Kafka transaction. So a
replay may be killed at any moment and run again, or two may run at a time (the second ends the first): readers of
committed records see each letter once. Only `--again` sends a letter once more. A record that is refused again becomes
another letter, with a higher count of attempts.

The note is the committed offset of the group `<app>.dead-letters`, with metadata (`notes.py`). Kafka drops offsets that
nobody renewed for `offsets.retention.minutes`, by default seven days; each replay renews them. Where the note is gone,
letters younger than that time were certainly not sent: a replay sends them. Older letters may have been sent: a replay
does not send them.

A letter keeps its key, value, timestamp and headers, and gets a header with the count of attempts. It goes to the
partition that it was in, or by key where the topic has fewer partitions now. A record that only just fitted goes
without the count; one that the topic no longer takes is passed over.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from stream.commands.dead_letters.choose import Plan, Survey
from stream.commands.dead_letters.letters import Letter, headers_of
from stream.commands.dead_letters.notes import Replayed, encoded, replayed_of
from stream.errors import Fenced, KafkaUnusable
from stream.kafka.errors import is_fatal
from stream.kafka.known_partitioners import Expected, option
from stream.kafka.names import replay_group, replay_id
from stream.kafka.read_topic import committed_records, partitions
from stream.kafka.record_limits import UNKNOWN, RecordLimits, writing
from stream.kafka.rights import publishing_replays
from stream.kafka.until_done import CALL_S, until_done
from stream.wire import ATTEMPTS_HEADER, Refusal, refusal

BATCH_LETTERS: Final = 2000
_BATCH_BYTES: Final = 16 << 20
_AGAIN_AFTER_S: Final = 0.1
_ABORT_CALL_S: Final = 1.0
"""A call purges the queue only once. Records that come back into it from under way keep the call, and not the next."""
_BY_KEY: Final = -1
"""In place of a partition: the partitioner chooses one."""

PRODUCER: Final[Mapping[str, Any]] = {
    "compression.type": "lz4",
    "linger.ms": 20,
    "transaction.timeout.ms": 60_000,
    "log_level": 3,  # a coordinator that is still loading is not worth a line
}


@dataclass(slots=True)
class Sent:
    """What became of the planned letters that were still there."""

    letters: int = 0
    """Sent and noted."""
    too_large: int = 0
    """Not sent: larger than the interactions topic takes."""


def begin(
    kafka: Mapping[str, Any], app: str, partitioner: Expected = "murmur2", limits: RecordLimits = UNKNOWN
) -> Producer:
    """The producer of a replay. Call this before the survey.

    It ends another replay of the application that is under way or was killed, and Kafka then aborts what that replay
    sent without noting it.

    Args:
        limits: how large the records of the interactions topic may be.

    Raises:
        KafkaUnusable: the right to the transactional id is missing.
    """
    own = {**PRODUCER, **kafka, **option(partitioner), "transactional.id": replay_id(app)}
    producer = Producer(writing(own, limits))
    try:
        until_done(lambda: producer.init_transactions(CALL_S))
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            raise KafkaUnusable(publishing_replays(app).line()) from error
        raise
    return producer


def send(
    kafka: Mapping[str, Any],
    app: str,
    topic: str,
    producer: Producer,
    surveyed: Survey,
    plan: Plan,
    *,
    partitioner: Expected = "murmur2",
    limits: RecordLimits = UNKNOWN,
    progress: Callable[[int, int], None],
    batch_letters: int = BATCH_LETTERS,
    before_commit: Callable[[], None] = lambda: None,
) -> Sent:
    """Send the plan's letters, a transaction per batch.

    Args:
        topic: the topic of the dead letters.
        producer: from `begin`, called before the survey.
        limits: how large the records of the interactions topic may be.
        before_commit: for tests; called when a batch is sent and neither committed nor noted yet.

    Raises:
        TopicsUnusable: the interactions topic does not exist; nothing was sent.
        Fenced: another replay began.
        KafkaUnusable: a batch was not sent; the batches before it were sent and noted.
    """
    width = len(partitions(kafka, surveyed.interactions))
    offsets = {
        number: [each.offset for each in surveyed.letters if each.partition == number] for number in surveyed.notes
    }
    notes: dict[int, Replayed] = {number: replayed or Replayed() for number, replayed in surveyed.notes.items()}
    metadata = _group_metadata(kafka, app)
    sent = Sent()
    for number, letters in _batches(kafka, topic, plan.send, batch_letters):
        batch = _Batch(producer, surveyed.interactions, width, letters)
        while batch.letters:
            new = {message.offset() for message, _ in batch.letters}
            before = notes[number]
            after = replayed_of(
                offsets[number], {offset for offset in offsets[number] if offset in new or offset in before}
            )
            noted = {**notes, number: after}
            positions = [TopicPartition(topic, each, *encoded(replayed)) for each, replayed in noted.items()]
            try:
                producer.begin_transaction()
                batch.produce()
                until_done(partial(producer.send_offsets_to_transaction, positions, metadata, CALL_S))
                before_commit()
                until_done(partial(producer.commit_transaction, CALL_S))
            except KafkaException as error:
                if not is_fatal(error.args[0]) and batch.leave_out_refused():
                    # The old producer would lose its sequence numbers after such an error.
                    producer = batch.producer = begin(kafka, app, partitioner, limits)
                    continue
                raise _aborted(producer, app, len(batch.letters), error) from error
            notes = noted
            sent.letters += len(batch.letters)
            break
        sent.too_large += len(letters) - len(batch.letters)
        progress(sent.letters + sent.too_large, len(plan.send))
    return sent


class _Batch:
    """The letters of one transaction. Some of them may turn out to be too large for the interactions topic."""

    def __init__(
        self, producer: Producer, interactions: str, width: int, letters: Sequence[tuple[Message, Refusal]]
    ) -> None:
        self.letters = list(letters)
        self.producer = producer
        self._interactions = interactions
        self._width = width
        self._refused: set[int] = set()
        """Offsets of the letters that were refused in this attempt."""
        self._failed = False
        """Whether a letter of this attempt did not arrive, for whatever reason."""
        self._without_counter: set[int] = set()
        """Offsets of letters that are sent without the header that counts attempts: the record alone may just fit."""

    def produce(self) -> None:
        """Send the letters, and wait until all have arrived or one has failed.

        Raises:
            KafkaException: a letter is larger than the producer takes.
        """
        self._refused.clear()
        self._failed = False
        for message, refused in self.letters:
            self._produce(message, refused)
        # What is queued behind a record that failed never leaves, and a commit would wait for it as long as it may.
        # The loop ends: a record that does not arrive within the transaction's timeout has failed.
        while len(self.producer) and not self._failed:
            self.producer.poll(_AGAIN_AFTER_S)

    def leave_out_refused(self) -> bool:
        """Abort, and take the letters that were refused out of the batch; at first only their counters.

        False if none was refused, or if the transaction cannot be aborted.
        """
        try:
            until_done(lambda: self.producer.abort_transaction(_ABORT_CALL_S))
        except KafkaException:
            return False
        self.producer.poll(0)
        again = self._refused & self._without_counter
        self._without_counter |= self._refused
        self.letters = [each for each in self.letters if each[0].offset() not in again]
        return bool(self._refused)

    def _produce(self, message: Message, refused: Refusal) -> None:
        offset = message.offset() or 0
        headers: list[tuple[str, str | bytes | None]] = [*refused.headers]
        if offset not in self._without_counter:
            headers.append((ATTEMPTS_HEADER, str(refused.attempts).encode()))
        # A letter that does not say its record's timestamp has its own, which is the closest there is.
        timestamp = message.timestamp()[1] if refused.timestamp is None else refused.timestamp
        to = refused.partition if refused.partition < self._width else _BY_KEY

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is None:
                return
            self._failed = True
            if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                self._refused.add(offset)

        while True:
            try:
                self.producer.produce(
                    self._interactions,
                    message.value(),
                    message.key(),
                    to,
                    headers=headers,
                    timestamp=timestamp,
                    on_delivery=delivered,
                )
            except BufferError:
                self.producer.poll(_AGAIN_AFTER_S)
            except KafkaException as error:
                delivered(error.args[0], message)
                raise
            else:
                return


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
            refused = refusal(headers_of(message))
            if message.offset() not in waiting or refused is None:
                continue
            waiting.discard(message.offset() or 0)
            batch.append((message, refused))
            held += len(message.value() or b"") + len(message.key() or b"")
            if len(batch) >= size or held >= _BATCH_BYTES:
                yield number, batch
                batch, held = [], 0
            if not waiting:
                break
        if batch:
            yield number, batch


def _group_metadata(kafka: Mapping[str, Any], app: str) -> object:
    """Names the group to Kafka. Nobody is a member of it, so it fences nothing: the transactional id does that."""
    consumer = Consumer({**kafka, "group.id": replay_group(app), "log_level": 3})
    try:
        return consumer.consumer_group_metadata()
    finally:
        consumer.close()


def _aborted(producer: Producer, app: str, count: int, error: KafkaException) -> Exception:
    """Abort the transaction, where that is still ours to do; returns the error to raise."""
    reason: KafkaError = error.args[0]
    if is_fatal(reason):
        return Fenced(f"another replay of {app} began and ended this one: {reason.str()}")
    with suppress(KafkaException):
        producer.abort_transaction(CALL_S)
    if reason.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return KafkaUnusable(
            f"{count} dead letters were not sent: one of them is larger than the producer or its topic accepts. Raise "
            "REC2PM_KAFKA_MESSAGE_MAX_BYTES and the topic's max.message.bytes, or name the other letters. Letters before these were sent and noted"
        )
    # A commit without an answer may have gone through.
    return KafkaUnusable(
        f"Kafka did not confirm that {count} dead letters were sent: {reason.str()}. What was sent is noted: run the command again for the rest"
    )
