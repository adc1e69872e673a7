"""Kafka for the worker: one consumer in the group, one transactional producer, and what each of their errors means.

The settings, the order of calls and the errors were measured; docs/kafka.md has the reasons. Three rules carry the rest: the group's
metadata is taken right after the poll that gave the step its records, so that the transaction is refused when another worker owns them by
then; no poll happens inside a transaction; and the worker's own positions are committed, never the client's.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, cast

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # documented, not in its __all__

from stream.errors import Fenced, KafkaUnusable, OutputTooLarge, StepAborted
from stream.partitions import Partitions
from stream.points import At, Point, passing
from stream.wire import MODEL_HEADER, Record, recommendation_as_json, recommendation_as_msgpack
from stream.worker import Outgoing

logger = logging.getLogger(__name__)

MAX_STEP_RECORDS: Final = 20_000
_CALL_S: Final = 30.0
"""How long one transaction call may wait; it is then called again."""
_FULL_QUEUE_WAIT_S: Final = 0.05

CONSUMER: Final[Mapping[str, Any]] = {
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    # Where a group begins is said in `resume`; an offset that the topic does not have is never replaced by another one in silence.
    "auto.offset.reset": "error",
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": 6000,
    "heartbeat.interval.ms": 500,
    "max.poll.interval.ms": 120_000,
    "fetch.queue.backoff.ms": 10,
    "fetch.wait.max.ms": 100,
    "queued.min.messages": 100_000,
    "queued.max.messages.kbytes": 65_536,
}
PRODUCER: Final[Mapping[str, Any]] = {
    "transaction.timeout.ms": 15_000,
    # A step's records leave in few large batches; committing flushes at once, so it is no wait at light load.
    "linger.ms": 20,
    "retry.backoff.ms": 5,
    "compression.type": "lz4",
    "partitioner": "murmur2_random",
    "queue.buffering.max.messages": 500_000,
}
CHANGELOG_READER: Final[Mapping[str, Any]] = {
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "fetch.queue.backoff.ms": 10,
    "fetch.wait.max.ms": 20,
    "queued.min.messages": 50_000,
    "queued.max.messages.kbytes": 32_768,
}
RESERVED: Final = frozenset(
    {
        "bootstrap.servers",
        "group.id",
        "transactional.id",
        "isolation.level",
        "enable.auto.commit",
        "enable.partition.eof",
        "partitioner",
        "auto.offset.reset",
        "partition.assignment.strategy",
    }
)
"""What the guarantee rests on, or another setting says: not for `REC2PM_KAFKA_*`."""


class KafkaLink:
    """The worker's side of Kafka (`stream.worker.Link`)."""

    def __init__(
        self,
        *,
        bootstrap: str,
        app: str,
        slot: str,
        interactions_topic: str,
        recommendations_topic: str,
        output_format: Literal["msgpack", "json"],
        extra: Mapping[str, str],
        at: At = passing,
    ) -> None:
        self._at = at
        self.changelog_topic: Final = f"{app}.changelog"
        self._dead_letter_topic: Final = f"{app}.dead-letter"
        self._input: Final = interactions_topic
        self._output: Final = recommendations_topic
        self._encode: Final[Callable[[Any], bytes]] = recommendation_as_json if output_format == "json" else recommendation_as_msgpack
        common: dict[str, Any] = {"bootstrap.servers": bootstrap, "client.id": f"{app}-{slot}", **extra}
        self.changelog_reader: Final = {**CHANGELOG_READER, **common, "group.id": f"{app}-{slot}-restore"}
        self._consumer = Consumer({**CONSUMER, **common, "group.id": app}, logger=logging.getLogger("rdkafka.consumer"))
        self._producer = Producer({**PRODUCER, **common, "transactional.id": f"{app}-{slot}"}, logger=logging.getLogger("rdkafka.producer"))
        self._admin = AdminClient(common, logger=logging.getLogger("rdkafka.admin"))
        self._metadata: object = None

    def start(self, partitions: Partitions) -> None:
        """Fence this slot's last process, then join the group.

        The order lets Kafka abort a dead predecessor's transaction before its partitions arrive here.
        """
        self._until_done(lambda: self._producer.init_transactions(_CALL_S), "init_transactions")

        def assigned(consumer: Consumer, given: Sequence[TopicPartition]) -> None:
            # At a place of no meaning, and paused: `resume` says where to begin. Left to itself the client would ask for the committed
            # offset here, before a dead predecessor's transaction has ended.
            consumer.incremental_assign([TopicPartition(each.topic, each.partition, 0) for each in given])
            consumer.pause(list(given))
            partitions.assigned([each.partition for each in given])

        def revoked(_: Consumer, taken: Sequence[TopicPartition]) -> None:
            partitions.gone([each.partition for each in taken], "revoked")

        def lost(_: Consumer, taken: Sequence[TopicPartition]) -> None:
            partitions.gone([each.partition for each in taken], "lost")

        self._consumer.subscribe([self._input], on_assign=assigned, on_revoke=revoked, on_lost=lost)

    def poll(self, limit: int, wait_s: float) -> Sequence[Record]:
        try:
            messages = self._consumer.consume(limit, wait_s)
        except KafkaException as error:
            raise _stop(error, "consume") from error
        self._metadata = self._consumer.consumer_group_metadata()
        if not messages:
            self._producer.poll(0)  # serves its log and error callbacks
            return ()
        records = [message for message in messages if message.error() is None]
        if len(records) < len(messages):
            for message in messages:
                self._report(message.partition(), message.error())
        return cast("list[Record]", records)  # only a message with an error lacks partition and offset

    def _report(self, partition: int | None, error: KafkaError | None) -> None:
        """A message that carries no record."""
        if error is None:
            return
        code = error.code()
        if code == KafkaError._AUTO_OFFSET_RESET:
            raise KafkaUnusable(
                f"{self._input}[{partition}] does not have the offset that was committed last: its records were deleted before they were "
                f"taken, or the topic was made anew. Nothing is changed here; kafka-consumer-groups.sh --reset-offsets says where to go on ({error})"
            )
        if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            raise KafkaUnusable(f"topic {self._input} is gone: create it again with `rec2pm topics create`, then restart ({error})")
        if code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
            raise KafkaUnusable(f"no permission to read {self._input}: {error}")
        if error.fatal() or code == KafkaError._FATAL:
            raise KafkaUnusable(f"the consumer cannot go on: {error}")
        logger.warning("consumer error=%s", error)

    def publish(self, outgoing: Outgoing) -> Mapping[int, int]:
        """One transaction. Returns the changelog offset that each partition's records reach.

        Raises:
            StepAborted: refused, without effect; the caller rewinds and takes the records again.
            Fenced, KafkaUnusable, OutputTooLarge: the process ends.
        """
        reached: dict[int, int] = {}

        def delivered(error: KafkaError | None, message: Message) -> None:
            partition, offset = message.partition(), message.offset()
            if error is None and partition is not None and offset is not None and offset >= 0:
                reached[partition] = offset + 1

        try:
            self._producer.begin_transaction()
            self._at(Point.BEGUN)
            for partition, changes in outgoing.changes.items():
                if not changes:
                    continue
                for key, value in changes[:-1]:
                    self._produce(self.changelog_topic, value, key, partition)
                # The last record's offset is the highest: one callback per partition is enough.
                key, value = changes[-1]
                self._produce(self.changelog_topic, value, key, partition, delivered)
            for user, made in outgoing.recommendations:
                headers = [] if made is None else [(MODEL_HEADER, made.model.encode())]
                self._produce(self._output, None if made is None else self._encode(made), user, headers=headers)
            for dead in outgoing.dead:
                self._produce(self._dead_letter_topic, dead.value, dead.key, headers=dead.headers)
            self._at(Point.PRODUCED)
            offsets = [TopicPartition(self._input, partition, offset) for partition, offset in outgoing.next_offsets.items()]
            # The only call that fences: it carries the generation that owned these records when they were polled.
            self._until_done(
                lambda: self._producer.send_offsets_to_transaction(offsets, self._metadata, _CALL_S), "send_offsets_to_transaction"
            )
            self._at(Point.OFFSETS_SENT)
            self._until_done(lambda: self._producer.commit_transaction(_CALL_S), "commit_transaction")
        except KafkaException as error:
            self._abort(error)
        return reached

    def _produce(self, topic: str, value: bytes | None, key: bytes | None, *more: Any, **named: Any) -> None:
        """`Producer.produce`, again while its queue is full: a record that was not taken must not be missed."""
        while True:
            try:
                return self._producer.produce(topic, value, key, *more, **named)
            except BufferError:
                self._producer.poll(_FULL_QUEUE_WAIT_S)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    # Swallowed, the transaction would commit without it.
                    raise OutputTooLarge(
                        f"a record of {len(value or b'')} bytes for {topic} is larger than the producer takes: raise "
                        "REC2PM_KAFKA_MESSAGE_MAX_BYTES and the topic's max.message.bytes"
                    ) from error
                raise

    def _abort(self, error: KafkaException) -> None:
        """Turn a failed transaction into what it means for the step."""
        reason: KafkaError = error.args[0]
        if reason.fatal() or reason.code() in (KafkaError._FATAL, KafkaError._FENCED):
            raise Fenced(
                f"another process uses this worker's slot, or a step outlived transaction.timeout.ms: {reason}. "
                "Give each live worker its own REC2PM_WORKER"
            ) from error
        if reason.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            raise OutputTooLarge(f"the broker refused a record as too large: raise the topic's max.message.bytes ({reason})") from error
        if not reason.txn_requires_abort():
            raise _stop(error, "transaction") from error
        try:
            self._until_done(lambda: self._producer.abort_transaction(_CALL_S), "abort_transaction")
        except KafkaException as failed:
            raise _stop(failed, "abort_transaction") from failed
        self._at(Point.ABORTED)
        raise StepAborted(str(reason)) from error

    def rewind(self, partitions: Iterable[int]) -> None:
        """Go back to the committed offsets: without it the aborted records would be skipped."""
        asked = [TopicPartition(self._input, partition) for partition in partitions]
        if not asked:
            return
        committed = self._waited_for(asked)
        low = {each.partition: self._consumer.get_watermark_offsets(each, timeout=_CALL_S)[0] for each in committed if each.offset < 0}
        for each in committed:
            self._consumer.seek(TopicPartition(self._input, each.partition, each.offset if each.offset >= 0 else low[each.partition]))

    def _waited_for(self, asked: Sequence[TopicPartition]) -> list[TopicPartition]:
        """The committed offsets, however long Kafka takes to say them."""
        while (committed := self._committed(asked)) is None:
            logger.warning("waiting for the committed offsets")
        return committed

    def settled(self, partition: int) -> bool:
        """Whether Kafka says what is committed of an input partition: not while a transaction on it is pending."""
        return self._committed([TopicPartition(self._input, partition)], timeout=1.0) is not None

    def changelog_bounds(self, partition: int) -> tuple[int, int] | None:
        """First offset and high watermark of a changelog partition; None when Kafka does not answer now.

        Asked as read_uncommitted: a read_committed question, and a read_committed consumer's watermark, is answered with the last stable
        offset, which somebody's open transaction holds back.
        """
        place = TopicPartition(self.changelog_topic, partition)
        try:
            low, high = (
                self._admin.list_offsets({place: spec}, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=_CALL_S)[place]
                .result(_CALL_S)
                .offset
                for spec in (OffsetSpec.earliest(), OffsetSpec.latest())  # type: ignore[no-untyped-call]
            )
        except KafkaException as error:
            if _comes_back(error):
                logger.warning("restore waits partition=%d reason=%s", partition, error)
                return None
            raise _stop(error, f"offsets of {place.topic}[{partition}]") from error
        return low, high

    def _committed(self, asked: Sequence[TopicPartition], timeout: float = _CALL_S) -> list[TopicPartition] | None:
        try:
            return list(self._consumer.committed(list(asked), timeout=timeout))
        except KafkaException as error:
            if _comes_back(error):
                return None
            raise _stop(error, "committed") from error

    def resume(self, partition: int) -> bool:
        """Begin to take a partition's records: at the committed offset, at the very first one where there is none. False: not yet."""
        place = TopicPartition(self._input, partition)
        committed = self._committed([place], timeout=1.0)
        if committed is None:
            return False
        try:
            start = committed[0].offset if committed[0].offset >= 0 else self._consumer.get_watermark_offsets(place, timeout=_CALL_S)[0]
            self._consumer.seek(TopicPartition(self._input, partition, start))
        except KafkaException as error:
            if error.args[0].code() == KafkaError._STATE or _comes_back(error):
                return False  # the client is still taking in the assignment, or Kafka is away
            raise _stop(error, f"seek {self._input}[{partition}]") from error
        self._consumer.resume([place])
        return True

    def pause(self, partition: int) -> None:
        self._consumer.pause([TopicPartition(self._input, partition)])

    def close(self) -> None:
        """Leave the group, so that others need not wait for the session to end."""
        self._consumer.close()

    def _until_done(self, call: Callable[[], None], name: str) -> None:
        """A retriable error asks for the same call again; it then goes on where it was."""
        while True:
            try:
                call()
            except KafkaException as error:
                reason: KafkaError = error.args[0]
                if not reason.retriable() or reason.fatal() or reason.txn_requires_abort():
                    raise
                logger.warning("%s waits for Kafka: %s", name, reason)
                time.sleep(0.1)
            else:
                return


def _comes_back(error: KafkaException) -> bool:
    """Whether Kafka only cannot answer now: away, or its coordinator is being made or moved. `retriable()` says no to most of these."""
    return error.args[0].retriable() or error.args[0].code() in (
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._WAIT_COORD,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    )


def _stop(error: KafkaException, where: str) -> Exception:
    reason: KafkaError = error.args[0]
    if reason.code() in (KafkaError._FENCED, KafkaError._FATAL) or reason.fatal():
        return Fenced(f"{where}: {reason}. Another process may use this worker's slot (REC2PM_WORKER)")
    return KafkaUnusable(f"{where} failed: {reason}")
