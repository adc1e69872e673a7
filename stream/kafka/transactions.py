"""The worker's transactions: one producer, the meaning of its errors, and when it is replaced.

The order of calls and the errors were measured; docs/kafka.md has the reasons. The offsets go into the transaction with
the group's metadata of the poll that brought the step's records. So Kafka refuses the transaction if another worker
owns the partitions by then.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NoReturn

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from stream.errors import Fenced, OutputTooLarge, StepAborted, StopAsked
from stream.fault_points import At, Point
from stream.kafka.call_thread import CallThread
from stream.kafka.errors import LEFT_BEHIND, NOT_ALLOWED, PUT_OUT, explained, is_fatal, stop
from stream.kafka.outage import Outage
from stream.kafka.sent_letters import SentLetters
from stream.keys import KeyFormat
from stream.ports import Outgoing
from stream.wire import MODEL_HEADER, DeadLetter, Recommendation

logger = logging.getLogger(__name__)

CALL_S: Final = 5.0
"""How long one transaction call may wait; then it is called again."""
_GRACE_S: Final = 1.0
"""Extra wait before a transaction counts as too old: its time at Kafka and ours do not start together."""
_FULL_QUEUE_WAIT_S: Final = 0.05
_LOOK_EVERY_S: Final = 1.0
"""How often a wait for Kafka checks whether the worker must stop."""


class _Overdue(Exception):
    """A call took longer than a transaction may last."""


@dataclass(frozen=True, slots=True)
class OutputTopics:
    """Where a step's records go."""

    changelog: str
    recommendations: str
    dead_letters: str


class Transactions:
    """One transaction at a time."""

    def __init__(
        self,
        *,
        topics: OutputTopics,
        encode: Callable[[Recommendation], bytes],
        keys: KeyFormat,
        new_producer: Callable[[], Producer],
        lasts_s: float,
        outage: Outage,
        at: At,
        largest_letter: int | None = None,
    ) -> None:
        """Args:
        largest_letter: `max.message.bytes` of the dead-letter topic; None if Kafka does not show it.
        lasts_s: the longest time that Kafka lets a transaction last (`transaction.timeout.ms`).
        """
        self._topics = topics
        self._letters = SentLetters(topics.dead_letters, largest_letter)
        self._encode = encode
        self._keys = keys
        self.new_producer = new_producer
        self.producer = new_producer()
        self.lasts_s = lasts_s
        self._outage = outage
        self._at = at
        self._calls = CallThread("transaction")
        self._first_reason: KafkaError | None = None
        """Why the transaction failed. Later calls of the client only say that it has failed."""
        self.began = outage.clock()
        self._unanswered: str | None = None
        """Why a request of this producer may have no answer: Kafka may receive it later, within another transaction."""

    def lost(self, why: str) -> None:
        """Note that the producer lost a connection, perhaps with a request on it that had no answer."""
        self._unanswered = why

    def start(self) -> None:
        """Fence the previous process with this worker's name and end its open transaction, however long Kafka is away.

        The same producer makes every attempt: an abandoned one could later take the name from its successor.
        """
        try:
            self._until_done(lambda producer: producer.init_transactions(CALL_S), "init_transactions", math.inf)
        except KafkaException as error:
            stop(error, "init_transactions")
        # Kafka refuses what came from before this answer.
        self._unanswered = None

    def serve(self) -> None:
        """Let the client call its log and error callbacks."""
        self.producer.poll(0)

    def publish(self, outgoing: Outgoing, offsets: Sequence[TopicPartition], metadata: object) -> Mapping[int, int]:
        """Publish in one transaction. Returns the changelog offset that each partition's records reach.

        Args:
            offsets: what is committed of the input.
            metadata: the group's, from the poll that brought the step's records.

        Raises:
            StepAborted: Kafka refused it, or did not answer in time: then it may be committed.
            Fenced, KafkaUnusable, OutputTooLarge, StopAsked: the process ends.
        """
        reached: dict[int, int] = {}

        def delivered(error: KafkaError | None, message: Message) -> None:
            partition, offset = message.partition(), message.offset()
            if error is None and partition is not None and offset is not None and offset >= 0:
                reached[partition] = offset + 1

        self.serve()
        if self._unanswered is not None:
            logger.info("new producer before the next transaction reason=%s", self._unanswered)
            self._renew()
        self.began = self._outage.clock()
        self._letters.begin()
        try:
            self.producer.begin_transaction()
            self._at(Point.BEGUN)
            self._produce_all(outgoing, delivered)
            self._at(Point.PRODUCED)
            # Only this call fences: it carries the generation of the group that owned these records at the poll.
            self._until_done(
                lambda producer: producer.send_offsets_to_transaction(offsets, metadata, CALL_S),
                "send_offsets_to_transaction",
            )
            self._at(Point.OFFSETS_SENT)
            self._until_done(lambda producer: producer.commit_transaction(CALL_S), "commit_transaction")
        except KafkaException as error:
            self._abort(error)
        except _Overdue as overdue:
            self._replace_producer(overdue)
        except OutputTooLarge:
            self._leave_nothing_open()
            raise
        self._first_reason = None
        self._letters.settle()
        return reached

    def _produce_all(self, outgoing: Outgoing, delivered: Callable[[KafkaError | None, Message], None]) -> None:
        for partition, changes in outgoing.changes.items():
            if not changes:
                continue
            for key, value in changes[:-1]:
                self._produce(self._topics.changelog, value, key, partition)
            # The last record's offset is the highest: one callback per partition is enough.
            key, value = changes[-1]
            self._produce(self._topics.changelog, value, key, partition, delivered)
        keys = self._keys.keys(user for user, _ in outgoing.recommendations)
        for key, (_, made) in zip(keys, outgoing.recommendations, strict=True):
            headers = [] if made is None else [(MODEL_HEADER, made.model.encode())]
            value = None if made is None else self._encode(made)
            self._produce(self._topics.recommendations, value, key, headers=headers)
        for dead in outgoing.dead:
            self._produce_letter(self._letters.fitted(dead))

    def _produce_letter(self, dead: DeadLetter) -> None:
        topic, delivered = self._topics.dead_letters, self._letters.delivery
        try:
            self._produce(topic, dead.value, dead.key, headers=dead.headers, on_delivery=delivered(dead))
        except OutputTooLarge:
            dead = self._letters.fitted_here(dead)
            self._produce(topic, dead.value, dead.key, headers=dead.headers, on_delivery=delivered(dead))

    def _produce(self, topic: str, value: bytes | None, key: bytes | None, *more: Any, **named: Any) -> None:
        """Call `Producer.produce`, again while its queue is full: every record must be queued."""
        while True:
            try:
                self.producer.produce(topic, value, key, *more, **named)
            except BufferError:
                self.producer.poll(_FULL_QUEUE_WAIT_S)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    # If this error were ignored, the transaction would commit without the record.
                    raise OutputTooLarge(
                        f"a record of {len(value or b'')} bytes for {topic} is larger than the producer takes: raise "
                        "REC2PM_KAFKA_MESSAGE_MAX_BYTES and the topic's max.message.bytes"
                    ) from error
                raise
            else:
                return

    def _leave_nothing_open(self) -> None:
        """Abort before the process ends with an error: readers would wait for the open transaction to time out."""
        with suppress(KafkaException, _Overdue, StopAsked):
            self._until_done(lambda producer: producer.abort_transaction(CALL_S), "abort_transaction")

    def _abort(self, error: KafkaException) -> NoReturn:
        """Abort, and raise what the failed transaction means for the step."""
        reason: KafkaError = error.args[0]
        if is_fatal(reason):
            self._replace_producer(error)
        if self._letters.sent and reason.code() in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._STATE):
            self._leave_out_refused(error)
        if reason.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            self._leave_nothing_open()
            raise OutputTooLarge(
                f"the broker refused a record as too large: raise the topic's max.message.bytes ({reason})"
            ) from error
        # The client calls it a wrong state, and no more, when a record comes after the broker has refused one.
        if not reason.txn_requires_abort() and reason.code() != KafkaError._STATE:
            self._leave_nothing_open()
            stop(error, "transaction")
        try:
            self._until_done(lambda producer: producer.abort_transaction(CALL_S), "abort_transaction")
        except KafkaException as failed:
            if is_fatal(failed.args[0]):
                self._replace_producer(failed)
            stop(failed, "abort_transaction")
        except _Overdue as overdue:
            self._replace_producer(overdue)
        self._at(Point.ABORTED)
        if reason.code() in NOT_ALLOWED:
            stop(error, "publishing")
        if reason.code() != KafkaError._STATE:
            self._first_reason = reason
        first = self._first_reason or reason
        raise StepAborted(explained(first), reason="rebalance" if first.code() in LEFT_BEHIND else "kafka") from error

    def _leave_out_refused(self, error: KafkaException) -> None:
        """Raise StepAborted, unless a record was too large that is no dead letter, or that cannot be made smaller.

        The producer is replaced: after such an error the old one loses its sequence numbers, and with them the next
        transaction.
        """
        self._leave_nothing_open()
        self.serve()
        reason: KafkaError = error.args[0]
        learned = self._letters.learn()
        if learned is None and reason.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return
        why = learned or explained(self._first_reason or reason)
        logger.info("new producer reason=%s", why)
        self._renew()
        self._at(Point.ABORTED)
        raise StepAborted(why, reason="letter_too_large" if learned else "kafka") from error

    def _replace_producer(self, error: "KafkaException | _Overdue") -> NoReturn:
        """Replace a producer that is no longer usable, and raise StepAborted.

        There are three reasons: it lost track of its records, its transaction was too old for Kafka, or another process
        has its name. Kafka's answer to the last two is the same, so the age of the transaction decides. After a
        transaction that was too old, a new producer with the same name ends what the old one left open. Against another
        process that would be an endless fight, so the worker stops.

        Raises:
            StepAborted: the producer was replaced.
            Fenced: another process has the name.
        """
        open_s = self._outage.clock() - self.began
        put_out = isinstance(error, KafkaException) and error.args[0].code() in PUT_OUT
        if put_out and open_s < self.lasts_s:
            raise Fenced(
                f"another process uses this worker's name: {error}. Give each live worker its own REC2PM_WORKER"
            ) from error
        logger.warning("new producer after=%.1f s reason=%s", open_s, error)
        self._renew()
        self._at(Point.ABORTED)
        raise StepAborted(
            f"the producer was replaced after {open_s:.1f} s: {error}", reason="producer_replaced"
        ) from error

    def _renew(self) -> None:
        """Make a new producer of the same name: Kafka refuses whatever the old one has sent and is still on its way.

        A request to end a transaction that arrives late would end the next transaction of the same producer, in the
        middle of its records (librdkafka #5423). A new producer has a higher epoch.
        """
        self.began = self._outage.clock()
        self.producer = self.new_producer()
        self.start()

    def _until_done(self, call: Callable[[Producer], None], name: str, deadline: float | None = None) -> None:
        """Repeat a call until it is done. After a retriable error the same call continues where it was.

        Without a `deadline` the wait ends when Kafka has ended the transaction because of its age. This does not rely
        on the call's own time-out, which `send_offsets_to_transaction` does not always keep (librdkafka #5456): the
        call runs on its own thread, and is left behind.

        Raises:
            _Overdue: the transaction is too old by now.
        """
        deadline = self.began + self.lasts_s + _GRACE_S if deadline is None else deadline
        producer = self.producer
        while True:
            try:
                return self._returned(self._calls.submit(partial(call, producer)), name, deadline)
            except KafkaException as error:
                reason: KafkaError = error.args[0]
                if not reason.retriable() or reason.fatal() or reason.txn_requires_abort():
                    raise
                self._unanswered = f"{name}: {reason.str()}"
                self._outage.wait(name, reason)
                if self._outage.stopping():
                    raise StopAsked(f"asked to stop while waiting for Kafka in {name}") from error
                if self._outage.clock() > deadline:
                    raise _Overdue(f"{name}: {reason.str()}") from error

    def _returned(self, done: "Future[None]", name: str, deadline: float) -> None:
        """Wait for a call, until the deadline. If the worker must stop, wait at most `CALL_S`."""
        try:
            while not done.done():
                now = self._outage.clock()
                late = self._outage.stopping() and now > self.began + CALL_S
                if late or now >= deadline:
                    # The thread ends, and frees the producer, when librdkafka returns from the call.
                    self._calls.leave()
                    self._calls = CallThread("transaction")
                    if late:
                        raise StopAsked(f"asked to stop while {name} did not return")
                    raise _Overdue(f"{name} did not return")
                wait([done], min(deadline - now, _LOOK_EVERY_S))
            done.result()
        finally:
            # The future holds the error, its traceback holds this frame, and the frame holds the future. Reference
            # counting cannot free such a cycle, and the cycle collector rarely runs in this process (`stream.compose`).
            del done

    def close(self) -> None:
        self._calls.leave()
