"""Kafka for the worker: one consumer in the group, one transactional producer, and what each of their errors means.

The settings, the order of calls and the errors were measured; docs/kafka.md has the reasons. Three rules carry the
rest: the group's metadata is taken right after the poll that gave the step its records, so that the transaction is
refused when another worker owns them by then; no poll happens inside a transaction; and the worker's own positions are
committed, never the client's.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from typing import Any, Final, Literal, NoReturn, cast

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from stream.errors import ChangelogUnfit, Fenced, InputGap, KafkaUnusable, OutputTooLarge, StepAborted, StopAsked
from stream.fault_points import At, Point, passing
from stream.kafka import lineage
from stream.kafka.call_thread import Beside
from stream.kafka.errors import NOT_ALLOWED, comes_back, is_fatal, told
from stream.kafka.lineage import Changelog, Committed, Lineage
from stream.kafka.options import (
    CHANGELOG_READER,
    CONSUMER,
    NAMED_SESSION_MS,
    PRODUCER,
    MemoryBudget,
    fitting,
    logger_of,
)
from stream.partitions import Partitions
from stream.ports import Outgoing
from stream.wire import MODEL_HEADER, Record, recommendation_as_json, recommendation_as_msgpack

logger = logging.getLogger(__name__)

_CALL_S: Final = 5.0
"""How long one transaction call may wait; it is then called again."""
_ASK_S: Final = 1.0
"""How long a question may hold up the loop; it is asked again in the next turn."""
_GRACE_S: Final = 1.0
"""How long a transaction that Kafka calls too old is waited for: its clock and ours do not start together."""
_FULL_QUEUE_WAIT_S: Final = 0.05
_SAY_EVERY_S: Final = 10.0
_LOOK_EVERY_S: Final = 1.0
"""How often a wait for Kafka looks whether the process is to stop."""
_KNOWS_NO_IDS: Final = (KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE)


_PUT_OUT: Final = (KafkaError._FENCED, KafkaError._FATAL, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED)


class _Overdue(Exception):
    """A call took longer than a transaction may last."""


class KafkaLink:
    """The worker's side of Kafka (`stream.worker.Link`)."""

    def __init__(
        self,
        *,
        bootstrap: str,
        app: str,
        slot: str,
        named: bool,
        interactions_topic: str,
        recommendations_topic: str,
        output_format: Literal["msgpack", "json"],
        memory: MemoryBudget,
        extra: Mapping[str, str],
        clock: Callable[[], float],
        at: At = passing,
    ) -> None:
        """Args:
        slot: part of the transactional id.
        named: whether the slot's name is an operator's promise that its worker comes back: the group then waits for it
            (static membership).
        extra: librdkafka's options, before ours.
        clock: seconds that only rise.
        """
        self._at = at
        self._clock = clock
        self.changelog_topic: Final = f"{app}.changelog"
        self._dead_letter_topic: Final = f"{app}.dead-letter"
        self._input: Final = interactions_topic
        self._output: Final = recommendations_topic
        self._encode: Final[Callable[[Any], bytes]] = (
            recommendation_as_json if output_format == "json" else recommendation_as_msgpack
        )
        common: dict[str, Any] = {"bootstrap.servers": bootstrap, "client.id": f"{app}-{slot}", **extra}
        self.changelog_reader: Final = fitting(
            {**CHANGELOG_READER, **memory.changelog_reader(), **common, "group.id": f"{app}-{slot}-restore"}
        )
        membership = {"group.instance.id": f"{app}-{slot}", "session.timeout.ms": NAMED_SESSION_MS} if named else {}
        self._consumer = Consumer(
            fitting({**CONSUMER, **memory.consumer(), **membership, **common, "group.id": app}),
            logger=logger_of("consumer"),
        )
        self._producing: Final = {**PRODUCER, **memory.producer(), **common, "transactional.id": f"{app}-{slot}"}
        self._transaction_s: Final = int(self._producing["transaction.timeout.ms"]) / 1000
        self._producer = self._new_producer()
        self._common: Final = common
        self._admin = self._new_admin()
        self._ask_again_at = clock()
        self._metadata: object = None
        self._asking = ThreadPoolExecutor(4, thread_name_prefix="committed")
        self._transacting = Beside("transaction")
        self._asked: dict[int, Future[Committed | None]] = {}
        self._asked_changelog: dict[int, Future[Changelog | None]] = {}
        self._taking: set[int] = set()
        """Partitions that the client fetches, or would if they were not paused."""
        self._why: KafkaError | None = None
        """Why the newest transaction that failed did: to further calls the client says only that it has failed."""
        self.input_id = ""
        self._began = clock()
        self._changelog_id = ""
        self._partitions_of_input = 0
        self._may_have_grown = False
        self._reached: dict[int, int] = {}
        """Partition → how long its changelog is known to be."""
        self.stopping: Callable[[], bool] = lambda: False
        """Whether to wait for Kafka no longer."""
        self.waited_at = self._said_at = -math.inf
        """When it last was seen that Kafka does not answer."""

    def _new_admin(self) -> AdminClient:
        return AdminClient(self._common, logger=logger_of("admin"))

    def _new_producer(self) -> Producer:
        return Producer(self._producing, logger=logger_of("producer"))

    def start(self, partitions: Partitions) -> None:
        """Fence this slot's last process, then join the group.

        The order lets Kafka abort a dead predecessor's transaction before its partitions arrive here.
        """
        self._init_transactions()
        self._partitions_of_input = self._counted(self._input)
        try:
            self.input_id = self._id_of(self._admin, self._input)
        except (KafkaException, TimeoutError) as error:
            raise KafkaUnusable(f"id of {self._input}: {error}") from error

        def assigned(consumer: Consumer, given: Sequence[TopicPartition]) -> None:
            # The assignment is taken, and nothing fetched: `resume` gives the client each partition with the place to
            # begin at. Told to find a place by itself, it may go back there half a second after it was led elsewhere
            # (decision 16).
            consumer.incremental_assign([])
            # Partitions that are added to a topic bring a rebalance with them.
            self._may_have_grown = True
            for each in given:
                self._asked.pop(each.partition, None)  # the answer to an earlier ownership
                self._asked_changelog.pop(each.partition, None)
            partitions.assigned([each.partition for each in given])

        def revoked(consumer: Consumer, taken: Sequence[TopicPartition]) -> None:
            try:
                partitions.revoked([each.partition for each in taken])
            finally:
                let_go(consumer, taken)

        def lost(consumer: Consumer, taken: Sequence[TopicPartition]) -> None:
            try:
                partitions.lost([each.partition for each in taken])
            finally:
                let_go(consumer, taken)

        def let_go(consumer: Consumer, taken: Sequence[TopicPartition]) -> None:
            # Not those that it was never given, which it would refuse.
            consumer.incremental_unassign([each for each in taken if each.partition in self._taking])
            self._taking.difference_update(each.partition for each in taken)

        self._consumer.subscribe([self._input], on_assign=assigned, on_revoke=revoked, on_lost=lost)

    def poll(self, limit: int, wait_s: float) -> Sequence[Record]:
        try:
            messages = self._consumer.consume(limit, wait_s)
        except KafkaException as error:
            _stop(error, "consume")
        self._metadata = self._consumer.consumer_group_metadata()
        if self._may_have_grown:
            self._refuse_growth()
        if not messages:
            self._producer.poll(0)  # serves its log and error callbacks
            return ()
        records = [message for message in messages if message.error() is None]
        if len(records) < len(messages):
            for message in messages:
                self._report(message.partition(), message.error())
        return cast("list[Record]", records)  # only a message with an error lacks partition and offset

    def _refuse_growth(self) -> None:
        """A user's partition follows from how many there are: with another number users would be cut off from their
        state.
        """
        try:
            now = self._counted(self._input)
        except KafkaUnusable:
            return  # asked again after the next poll
        self._may_have_grown = False
        if now != self._partitions_of_input:
            raise ChangelogUnfit(
                f"{self._input} has {now} partitions and had {self._partitions_of_input} when this worker started: users are in other "
                "partitions now, away from their state; a topic's partitions cannot be taken away again, so send interactions to a new topic "
                "with a new REC2PM_APP, or to one with the former number"
            )

    def _report(self, partition: int | None, error: KafkaError | None) -> None:
        """A message that carries no record."""
        if error is None:
            return
        code = error.code()
        if code == KafkaError._AUTO_OFFSET_RESET:
            raise InputGap(
                f"{self._input}[{partition}] does not have the offset to go on from: its records were deleted before they were taken, or the "
                f"topic was made anew. Nothing is changed here; {_SAY_WHERE} ({error})"
            )
        if is_fatal(error):
            raise Fenced(
                f"another process has joined the group under this worker's name (REC2PM_WORKER), or Kafka put it out: {error.str()}"
            )
        if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            raise KafkaUnusable(
                f"{self._input} is gone: create it again with `rec2pm topics create`, then restart ({error.str()})"
            )
        if code in NOT_ALLOWED:
            raise KafkaUnusable(f"reading {self._input}: {told(error)}")
        logger.warning("consumer error=%s", error)

    def publish(self, outgoing: Outgoing) -> Mapping[int, int]:
        """One transaction. Returns the changelog offset that each partition's records reach.

        Raises:
            StepAborted: refused, or without an answer in time; the caller asks the changelog what became of it.
            Fenced, KafkaUnusable, OutputTooLarge, ChangelogUnfit: the process ends.
        """
        reached: dict[int, int] = {}

        def delivered(error: KafkaError | None, message: Message) -> None:
            partition, offset = message.partition(), message.offset()
            if error is None and partition is not None and offset is not None and offset >= 0:
                reached[partition] = offset + 1

        self._began = self._clock()
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
            offsets = [
                TopicPartition(self._input, partition, offset, metadata=self._lineage(partition).text())
                for partition, offset in outgoing.next_offsets.items()
            ]
            # The only call that fences: it carries the generation that owned these records when they were polled.
            self._until_done(
                lambda producer: producer.send_offsets_to_transaction(offsets, self._metadata, _CALL_S),
                "send_offsets_to_transaction",
            )
            self._at(Point.OFFSETS_SENT)
            self._until_done(lambda producer: producer.commit_transaction(_CALL_S), "commit_transaction")
        except KafkaException as error:
            self._abort(error)
        except _Overdue as overdue:
            self._replace_producer(overdue)
        except OutputTooLarge:
            self._leave_nothing_open()
            raise
        self._why = None
        self._check_growing(reached)
        return reached

    def _leave_nothing_open(self) -> None:
        """Before the process ends with an error: readers would wait for an open transaction until its time-out."""
        with suppress(KafkaException, _Overdue, StopAsked):
            self._until_done(lambda producer: producer.abort_transaction(_CALL_S), "abort_transaction")

    def _lineage(self, partition: int) -> Lineage:
        return Lineage(self._changelog_id, self._partitions_of_input, self._reached.get(partition, 0))

    def _check_growing(self, reached: Mapping[int, int]) -> None:
        """A changelog that is shorter than it was is another one, made anew under the same name while this worker
        ran.
        """
        for partition, offset in reached.items():
            if offset <= self._reached.get(partition, 0):
                raise ChangelogUnfit(
                    f"{self.changelog_topic}[{partition}] ended at {self._reached[partition]} and ends at {offset} now: it was deleted and made "
                    "anew, and the state of before is not in it"
                )
            self._reached[partition] = offset

    def _produce(self, topic: str, value: bytes | None, key: bytes | None, *more: Any, **named: Any) -> None:
        """`Producer.produce`, again while its queue is full: a record that was not taken must not be missed."""
        while True:
            try:
                self._producer.produce(topic, value, key, *more, **named)
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
            else:
                return

    def _abort(self, error: KafkaException) -> NoReturn:
        """Turn a failed transaction into what it means for the step."""
        reason: KafkaError = error.args[0]
        if is_fatal(reason):
            self._replace_producer(error)
        if reason.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            self._leave_nothing_open()
            raise OutputTooLarge(
                f"the broker refused a record as too large: raise the topic's max.message.bytes ({reason})"
            ) from error
        if not reason.txn_requires_abort():
            self._leave_nothing_open()
            _stop(error, "transaction")
        try:
            self._until_done(lambda producer: producer.abort_transaction(_CALL_S), "abort_transaction")
        except KafkaException as failed:
            if is_fatal(failed.args[0]):
                self._replace_producer(failed)
            _stop(failed, "abort_transaction")
        except _Overdue as overdue:
            self._replace_producer(overdue)
        self._at(Point.ABORTED)
        if reason.code() in NOT_ALLOWED:
            _stop(error, "publishing")
        if reason.code() != KafkaError._STATE:
            self._why = reason
        raise StepAborted(told(self._why or reason)) from error

    def _replace_producer(self, error: "KafkaException | _Overdue") -> NoReturn:
        """A producer that is out for good: it lost track of its records, its transaction was too old for Kafka, or
        another process has its name.

        Kafka's answer is the same to the latter two, so the clock tells them apart. A new producer under the same name
        ends whatever the old one left open, and goes on. Against another process that would be a quarrel without end.
        """
        open_s = self._clock() - self._began
        out = isinstance(error, KafkaException) and error.args[0].code() in _PUT_OUT
        if out and open_s < self._transaction_s:
            raise Fenced(
                f"another process uses this worker's slot: {error}. Give each live worker its own REC2PM_WORKER"
            ) from error
        logger.warning("new producer after=%.1f s reason=%s", open_s, error)
        self._producer = self._new_producer()
        self._init_transactions()
        self._at(Point.ABORTED)
        raise StepAborted(f"the producer was replaced after {open_s:.1f} s: {error}") from error

    def _init_transactions(self) -> None:
        """However long Kafka is away. The producer stays: one that was given up could still take the name from its
        successor.
        """
        try:
            self._until_done(lambda producer: producer.init_transactions(_CALL_S), "init_transactions", math.inf)
        except KafkaException as error:
            _stop(error, "init_transactions")

    def committed(self, partition: int) -> Committed | None:
        """What is committed of an input partition; None while Kafka does not say, as when a transaction on it is
        pending.

        Asked beside the loop, so that the other partitions go on meanwhile.
        """
        if (asked := self._asked.get(partition)) is None:
            self._asked[partition] = self._asking.submit(self._committed, partition, _CALL_S)
            # A restore begins here, and asks for the changelog's end after this: what an earlier one asked is no answer
            # to it.
            self._asked_changelog.pop(partition, None)
            return None
        if not asked.done():
            return None
        return self._asked.pop(partition).result()

    def _committed(self, partition: int, within_s: float) -> Committed | None:
        try:
            (found,) = self._consumer.committed([TopicPartition(self._input, partition)], timeout=within_s)
        except KafkaException as error:
            reason: KafkaError | None = error.args[0]
        else:
            reason = found.error
        if reason is None:
            return Committed(found.offset if found.offset >= 0 else None, lineage.read(found.metadata))
        if not comes_back(reason):
            _stop(KafkaException(reason), "committed")
        self.waited_at = self._clock()
        return None

    def changelog(self, partition: int) -> Changelog | None:
        """The changelog partition as it is; None when Kafka has not said yet, or does not answer now.

        Asked beside the loop, as `committed` is.
        """
        if self._clock() < self._ask_again_at:
            return None
        if (asked := self._asked_changelog.get(partition)) is None:
            self._asked_changelog[partition] = self._asking.submit(self._changelog, partition, self._admin)
            return None
        if not asked.done():
            return None
        found = self._asked_changelog.pop(partition).result()
        if found is None:
            self._ask_again_at = self._clock() + _ASK_S
            # This one asks with the leader's epoch that it once saw: after a broker's restart it is refused, and does
            # not look again.
            self._admin = self._new_admin()
            return None
        if "" not in (self._changelog_id, found.id) and self._changelog_id != found.id:
            raise ChangelogUnfit(
                f"{self.changelog_topic} was deleted and made anew while this worker ran: the state of before is not in it"
            )
        self._changelog_id = found.id or self._changelog_id
        self._reached[partition] = found.high
        return found

    def _changelog(self, partition: int, admin: AdminClient) -> Changelog | None:
        """Its end is asked for as read_uncommitted: a read_committed question, and a read_committed consumer's
        watermark, is answered with the last stable offset, which somebody's open transaction holds back.
        """
        place = TopicPartition(self.changelog_topic, partition)
        try:
            low, high = (
                admin.list_offsets(
                    {place: spec}, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=_CALL_S
                )[place]
                .result(2 * _CALL_S)
                .offset
                for spec in (OffsetSpec.earliest(), OffsetSpec.latest())
            )
            return Changelog(self._id_of(admin, self.changelog_topic), self._partitions_of_input, low, high)
        except (KafkaException, TimeoutError) as error:
            if isinstance(error, KafkaException) and not comes_back(error.args[0]):
                _stop(error, f"offsets of {place.topic}[{partition}]")
            logger.warning("restore waits partition=%d reason=%s", partition, error)
            self.waited_at = self._clock()
            return None

    def _id_of(self, admin: AdminClient, topic: str) -> str:
        """Kafka's id of a topic; empty where the broker knows no ids."""
        future = admin.describe_topics(TopicCollection([topic]), request_timeout=_CALL_S)[topic]
        try:
            found = future.result(2 * _CALL_S).topic_id
        except KafkaException as error:
            if error.args[0].code() not in _KNOWS_NO_IDS:
                raise
            logger.warning(
                "topic=%s: the broker does not tell its id (%s): that it was made anew is not noticed", topic, error
            )
            return ""
        return "" if found is None else str(found)

    def _counted(self, topic: str) -> int:
        """Partitions of a topic."""
        try:
            found = self._consumer.list_topics(topic, timeout=_CALL_S).topics[topic]
        except KafkaException as error:
            _stop(error, f"partitions of {topic}")
        if found.error is not None:
            raise KafkaUnusable(f"{topic}: {told(found.error)}")
        return len(found.partitions)

    def resume(self, partition: int, position: int | None, input_id: str | None) -> int | None:
        """Begin to take a partition's records. The offset that the first one has at least; None: not yet.

        Begun is where the state stands, `position`, which is in the changelog with it. It is what is committed too, as
        long as Kafka remembers that; an offset that somebody set by hand, which has no lineage, is what they want.
        Where there is neither state nor offset, at the very first record.

        Args:
            input_id: of the topic that the state was made from; None where that was never said.

        Raises:
            InputGap: the topic does not hold what follows.
        """
        place = TopicPartition(self._input, partition)
        committed = self._committed(partition, _ASK_S)
        if committed is None:
            return None
        by_hand = committed.offset is not None and committed.lineage is None
        if input_id and self.input_id and input_id != self.input_id and not by_hand:
            raise InputGap(
                f"{self._input} is another topic (id {self.input_id}) than the one whose records the state has taken up to offset {position} of "
                f"partition {partition} (id {input_id}): it was deleted and made anew, and offsets of before mean nothing in it. Nothing is "
                f"changed here; {_SAY_WHERE}"
            )
        try:
            low, _ = self._consumer.get_watermark_offsets(place, timeout=_ASK_S)
            if position is not None and not by_hand:
                start = position
                if committed.offset != position:
                    logger.warning(
                        "partition=%d: the group has committed %s, its state has taken up to %d and goes on from there",
                        partition,
                        committed.offset,
                        position,
                    )
            else:
                start = low if committed.offset is None else committed.offset
            if start < low:
                raise InputGap(
                    f"{self._input}[{partition}]: the {low - start} records from offset {start}, where the state stands, to {low}, the first that is kept, were "
                    f"deleted before they were taken (retention). Nothing is changed here; {_SAY_WHERE}"
                )
            place.offset = start
            if partition in self._taking:
                self._consumer.seek(place)
            # The client keeps a pause beyond the assignment that it was made in.
            self._consumer.resume([place])
            if partition not in self._taking:
                self._consumer.incremental_assign([place])
                self._taking.add(partition)
        except KafkaException as error:
            if error.args[0].code() == KafkaError._STATE or comes_back(error.args[0]):
                return None  # the client is still taking in the assignment, or Kafka is away
            _stop(error, f"begin {self._input}[{partition}]")
        return start

    def pause(self, partition: int) -> None:
        self._consumer.pause([TopicPartition(self._input, partition)])

    def close(self) -> None:
        """Leave the group, so that others need not wait for the session to end; a named worker stays a member and is
        waited for.
        """
        self._transacting.leave()
        self._asking.shutdown(cancel_futures=True)  # none may ask a consumer that is closed
        self._consumer.close()

    def _until_done(self, call: Callable[[Producer], None], name: str, deadline: float | None = None) -> None:
        """Call until it is done. A retriable error asks for the same call again; it then goes on where it was.

        Not for longer than a transaction may last, if not said otherwise: then Kafka has ended it, whatever the call
        would say. Nor does it rely on the call's own time-out, which `send_offsets_to_transaction` does not always keep
        (librdkafka #5456): it runs beside, and is left behind.

        Raises:
            _Overdue: the transaction is too old by now.
        """
        deadline = self._began + self._transaction_s + _GRACE_S if deadline is None else deadline
        producer = self._producer
        while True:
            try:
                return self._returned(self._transacting.submit(partial(call, producer)), name, deadline)
            except KafkaException as error:
                reason: KafkaError = error.args[0]
                if not reason.retriable() or reason.fatal() or reason.txn_requires_abort():
                    raise
                self._waits(name, reason)
                if self.stopping():
                    raise StopAsked(f"asked to stop while waiting for Kafka in {name}") from error
                if self._clock() > deadline:
                    raise _Overdue(f"{name}: {reason.str()}") from error

    def _returned(self, done: "Future[None]", name: str, deadline: float) -> None:
        """Wait for a call, until it is too late or, where it takes its time, until this process is asked to stop."""
        try:
            while not done.done():
                now = self._clock()
                late = self.stopping() and now > self._began + _CALL_S
                if late or now >= deadline:
                    # Its thread ends when librdkafka lets go of it, and the producer with it.
                    self._transacting.leave()
                    self._transacting = Beside("transaction")
                    raise (
                        StopAsked(f"asked to stop while {name} did not return")
                        if late
                        else _Overdue(f"{name} did not return")
                    )
                wait([done], min(deadline - now, _LOOK_EVERY_S))
            done.result()
        finally:
            # It holds what the call raised, whose traceback holds this frame and the step's: a circle that stays, as
            # circles are hardly ever looked for in this process (`stream.compose`).
            del done

    def _waits(self, name: str, reason: KafkaError) -> None:
        """Say that Kafka is waited for, now and then, and give it a moment."""
        self.waited_at = now = self._clock()
        if now - self._said_at > _SAY_EVERY_S:
            self._said_at = now
            logger.warning("waiting for Kafka call=%s reason=%s", name, reason)
        time.sleep(0.1)


_SAY_WHERE: Final = (
    "say where to go on with kafka-consumer-groups.sh --reset-offsets (--to-earliest takes all that is left)"
)


def _stop(error: KafkaException, where: str) -> NoReturn:
    reason: KafkaError = error.args[0]
    if reason.code() in _PUT_OUT:
        raise Fenced(f"{where}: {reason.str()}. Another process may use this worker's slot (REC2PM_WORKER)") from error
    raise KafkaUnusable(f"{where} failed: {told(reason)}") from error
