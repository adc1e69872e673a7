"""The link to the group: the consumer, the offsets where its partitions start, and the publishing of a step.

The settings and the order of calls were measured; docs/kafka.md has the reasons. Three rules matter most. The link
takes the group's metadata right after the poll that brought the step's records, so Kafka refuses the transaction if
another worker owns the partitions by then. No poll happens inside a transaction. The worker commits its own positions,
never the client's.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from stream.errors import ChangelogUnfit, Fenced, InputGap, KafkaUnusable
from stream.fault_points import At, passing
from stream.kafka.ends import Ends
from stream.kafka.errors import NOT_ALLOWED, comes_back, explained, is_fatal, stop
from stream.kafka.lineage import Changelog, Committed, KnownChangelog
from stream.kafka.lost_connections import WatchedLog
from stream.kafka.names import changelog_topic, dead_letter_topic, reader_group, worker_id
from stream.kafka.options import (
    CHANGELOG_READER,
    CONSUMER,
    NAMED_SESSION_MS,
    PRODUCER,
    MemoryBudget,
    fitting,
    logger_of,
)
from stream.kafka.outage import Outage
from stream.kafka.questions import Questions
from stream.kafka.record_limits import UNKNOWN, RecordLimits, reading, writing
from stream.kafka.statistics import Statistics
from stream.kafka.transactions import OutputTopics, Transactions
from stream.keys import KeyFormat
from stream.partitions import Partitions
from stream.ports import Empty, Outgoing
from stream.wire import Record, recommendation_as_json, recommendation_as_msgpack

logger = logging.getLogger(__name__)

_ASK_S: Final = 1.0
"""How long one question may block the loop. It is repeated in the next turn."""
_SAY_WHERE: Final = (
    "say where to continue with kafka-consumer-groups.sh --reset-offsets (--to-earliest reads everything that is left)"
)


class KafkaLink:
    """The worker's side of Kafka (`stream.ports.Link`)."""

    def __init__(
        self,
        *,
        bootstrap: str,
        app: str,
        worker_name: str,
        named: bool,
        interactions_topic: str,
        recommendations_topic: str,
        output_format: Literal["msgpack", "json"],
        keys: KeyFormat,
        memory: MemoryBudget,
        extra: Mapping[str, str],
        clock: Callable[[], float],
        limits: RecordLimits = UNKNOWN,
        at: At = passing,
    ) -> None:
        """Args:
        worker_name: part of the transactional id.
        named: an operator gave this name, and so promises that its worker comes back. The group waits for it
            (static membership).
        extra: librdkafka's options; ours come before them.
        clock: monotonic seconds.
        limits: how large the topics' records may be.
        """
        self.changelog_topic: Final = changelog_topic(app)
        self._input: Final = interactions_topic
        name = worker_id(app, worker_name)
        common: dict[str, Any] = {"bootstrap.servers": bootstrap, "client.id": name, **extra}
        self.changelog_reader: Final = fitting(
            reading({**CHANGELOG_READER, **memory.changelog_reader(), **common, "group.id": reader_group(app)})
        )
        self._outage: Final = Outage(clock)
        self._statistics: Final = Statistics(interactions_topic, self._outage)
        membership = {"group.instance.id": name, "session.timeout.ms": NAMED_SESSION_MS} if named else {}
        self._consumer = Consumer(
            fitting(
                reading(
                    {
                        **CONSUMER,
                        **memory.consumer(),
                        **self._statistics.options(),
                        **membership,
                        **common,
                        "group.id": app,
                    }
                )
            ),
            logger=logger_of("consumer"),
        )
        self._known: Final = KnownChangelog(self.changelog_topic)
        self.questions: Final = Questions(
            consumer=lambda: self._consumer,
            options=common,
            interactions=interactions_topic,
            changelog=self.changelog_topic,
            known=self._known,
            outage=self._outage,
        )
        own = {
            **PRODUCER,
            **memory.producer(),
            **common,
            "transactional.id": name,
            # The log must tell of each lost connection (`WatchedLog`).
            "log.connection.close": True,
            "log_level": max(6, int(extra.get("log_level", 6))),
        }
        self._producing: Final = writing(own, limits)
        self.transactions: Final = Transactions(
            topics=OutputTopics(self.changelog_topic, recommendations_topic, dead_letter_topic(app)),
            encode=recommendation_as_json if output_format == "json" else recommendation_as_msgpack,
            keys=keys,
            new_producer=self._new_producer,
            lasts_s=int(self._producing["transaction.timeout.ms"]) / 1000,
            outage=self._outage,
            at=at,
            largest_letter=limits.dead_letters,
        )
        self._metadata: object = None
        """The group's metadata, from the last poll."""
        self._fetching: set[int] = set()
        """Partitions that the client fetches, paused ones included."""
        self._ends: Final = Ends(topic=interactions_topic, config=self.changelog_reader, clock=clock)
        self._may_have_grown = False
        self.input_id = ""

    def _new_producer(self) -> Producer:
        watched = WatchedLog(logger_of("producer"), lambda why: self.transactions.lost(why))
        return Producer(self._producing, logger=watched)

    @property
    def width(self) -> int:
        return self._known.partitions

    @property
    def waited_at(self) -> float:
        return self._outage.waited_at

    @property
    def ends(self) -> Mapping[int, int]:
        return self._statistics.ends

    def stop_waiting_if(self, stopping: Callable[[], bool]) -> None:
        """Stop waiting for Kafka when `stopping` returns True."""
        self._outage.stopping = stopping

    def start(self, partitions: Partitions) -> None:
        """Fence the previous process with this worker's name, then join the group.

        In this order, Kafka aborts the open transaction of a dead process before its partitions arrive here.
        """
        self.transactions.start()
        self._known.partitions = self.questions.partitions_of(self._input)
        try:
            self.input_id = self.questions.topic_id(self._input)
        except (KafkaException, TimeoutError) as error:
            raise KafkaUnusable(f"id of {self._input}: {error}") from error

        def assigned(consumer: Consumer, given: Sequence[TopicPartition]) -> None:
            # This acknowledges the assignment. Nothing is fetched yet: `resume` gives the client each partition with
            # its first offset. A client that looks for an offset by itself may return to it half a second after a seek
            # (decision 16).
            consumer.incremental_assign([])
            # Partitions that are added to a topic bring a rebalance with them.
            self._may_have_grown = True
            for each in given:
                self.questions.forget(each.partition)
            partitions.assigned([each.partition for each in given])

        def revoked(consumer: Consumer, gone: Sequence[TopicPartition]) -> None:
            try:
                partitions.revoked([each.partition for each in gone])
            finally:
                let_go(consumer, gone)

        def lost(consumer: Consumer, gone: Sequence[TopicPartition]) -> None:
            try:
                partitions.lost([each.partition for each in gone])
            finally:
                let_go(consumer, gone)

        def let_go(consumer: Consumer, gone: Sequence[TopicPartition]) -> None:
            # The client refuses to unassign a partition that was never assigned to it.
            consumer.incremental_unassign([each for each in gone if each.partition in self._fetching])
            self._fetching.difference_update(each.partition for each in gone)

        self._consumer.subscribe([self._input], on_assign=assigned, on_revoke=revoked, on_lost=lost)

    def poll(self, limit: int, wait_s: float) -> Sequence[Record]:
        try:
            messages = self._consumer.consume(limit, wait_s)
        except KafkaException as error:
            stop(error, "consume")
        self._metadata = self._consumer.consumer_group_metadata()
        if self._may_have_grown:
            self._refuse_growth()
        if not messages:
            self.transactions.serve()
            return ()
        records = [message for message in messages if message.error() is None]
        if len(records) < len(messages):
            for message in messages:
                self._check(message.partition(), message.error())
        return cast("list[Record]", records)  # only a message with an error lacks partition and offset

    def _refuse_growth(self) -> None:
        """Stop if the input has more partitions: users would be in other partitions, away from their state."""
        try:
            now = self.questions.partitions_of(self._input)
        except KafkaUnusable:
            return  # the next poll asks again
        self._may_have_grown = False
        if now != self._known.partitions:
            raise ChangelogUnfit(
                f"{self._input} has {now} partitions and had {self._known.partitions} when this worker started: users "
                "are in other partitions now, away from their state. Kafka cannot remove partitions from a topic, so "
                "send interactions to a new topic with a new REC2PM_APP, or to one with the former number of partitions"
            )

    def _check(self, partition: int | None, error: KafkaError | None) -> None:
        """Raise the error for a message without a record, if it ends the process."""
        if error is None:
            return
        code = error.code()
        if code == KafkaError._AUTO_OFFSET_RESET:
            raise InputGap(
                f"{self._input}[{partition}] does not have the next offset to read: its records were deleted before a "
                f"worker read them, or the topic was deleted and created again. Nothing is changed here; {_SAY_WHERE} "
                f"({error})"
            )
        if is_fatal(error):
            raise Fenced(
                "another process has joined the group under this worker's name (REC2PM_WORKER), or Kafka removed this "
                f"worker from it: {error.str()}"
            )
        if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            raise KafkaUnusable(
                f"{self._input} is gone: create it again with `rec2pm topics create`, then restart ({error.str()})"
            )
        if code in NOT_ALLOWED:
            raise KafkaUnusable(f"reading {self._input}: {explained(error)}")
        logger.warning("consumer error=%s", error)

    def look_for_ends(self, positions: Mapping[int, int]) -> None:
        """Look whether partitions hold records from these offsets on. Does not wait for the answer (`found_empty`)."""
        # What the client knows of the ends from its last fetch. Equal to the position, there is nothing to look for.
        known = {
            number: self._consumer.get_watermark_offsets(TopicPartition(self._input, number), cached=True)[1]
            for number in positions
        }
        self._ends.look({number: offset for number, offset in positions.items() if known[number] > offset})

    def found_empty(self) -> Mapping[int, Empty] | None:
        return self._ends.found()

    @property
    def looking(self) -> bool:
        return self._ends.looking

    def publish(self, outgoing: Outgoing) -> Mapping[int, int]:
        """Publish in one transaction. Returns the changelog offset that each partition's records reach.

        Raises:
            StepAborted: Kafka refused it, or did not answer in time: then it may be committed.
            Fenced, KafkaUnusable, OutputTooLarge, ChangelogUnfit, StopAsked: the process ends.
        """
        offsets = [
            TopicPartition(self._input, partition, offset, metadata=self._known.lineage(partition).text())
            for partition, offset in outgoing.next_offsets.items()
        ]
        reached = self.transactions.publish(outgoing, offsets, self._metadata)
        self._known.grew(reached)
        return reached

    def committed(self, partition: int) -> Committed | None:
        """What the group has committed of an input partition; None if Kafka has not answered yet."""
        return self.questions.committed(partition)

    def changelog(self, partition: int) -> Changelog | None:
        """The changelog partition as it is now; None if Kafka has not answered yet."""
        return self.questions.changelog(partition)

    def resume(self, partition: int, position: int | None, input_id: str | None) -> int | None:
        """Begin to fetch a partition's records, or move to another offset and lift a pause.

        Args:
            position: the offset stored with the state; None if there is no state.
            input_id: id of the topic that the state was made from; None if no worker has stored it.

        Returns:
            The lowest offset that the first record can have; None if Kafka has not answered yet: call again.

        Raises:
            InputGap: the topic does not hold the next record.
        """
        committed = self.questions.committed_within(partition, _ASK_S)
        if committed is None:
            return None
        if input_id and self.input_id and input_id != self.input_id and not committed.by_hand:
            raise InputGap(
                f"{self._input} is another topic (id {self.input_id}) than the one from which the state of partition "
                f"{partition} was made up to offset {position} (id {input_id}): the topic was deleted and created again, "
                f"and offsets of the old one mean nothing in it. Nothing is changed here; {_SAY_WHERE}"
            )
        try:
            low, _ = self._consumer.get_watermark_offsets(TopicPartition(self._input, partition), timeout=_ASK_S)
            start = self._first_offset(partition, position, committed, low)
            self._fetch_from(TopicPartition(self._input, partition, start))
        except KafkaException as error:
            if error.args[0].code() == KafkaError._STATE or comes_back(error.args[0]):
                return None  # the client has not processed the assignment yet, or Kafka is away
            stop(error, f"begin {self._input}[{partition}]")
        return start

    def _first_offset(self, partition: int, position: int | None, committed: Committed, low: int) -> int:
        """The offset of a partition's first record.

        It is the position stored with the state. The group has committed the same offset, unless Kafka lost it. An
        offset without a lineage was set by an operator, and wins. Without state and without an offset, it is the first
        offset of the topic, `low`.
        """
        if position is not None and not committed.by_hand:
            start = position
            if committed.offset != position:
                logger.warning(
                    "partition=%d: the group has committed offset %s, but the state reaches %d: resuming from there",
                    partition,
                    committed.offset,
                    position,
                )
        else:
            start = low if committed.offset is None else committed.offset
        if start < low:
            raise InputGap(
                f"{self._input}[{partition}]: the {low - start} offsets from {start}, which the state reaches, to "
                f"{low}, the first one that the topic still holds, were deleted before a worker read them (retention). "
                "Records are lost, unless these offsets held nothing but transaction markers and aborted records. "
                f"Nothing is changed here; {_SAY_WHERE}"
            )
        return start

    def _fetch_from(self, place: TopicPartition) -> None:
        if place.partition in self._fetching:
            self._consumer.seek(place)
        # The client keeps a pause even when the partition is assigned again.
        self._consumer.resume([place])
        if place.partition not in self._fetching:
            self._consumer.incremental_assign([place])
            self._fetching.add(place.partition)

    def pause(self, partition: int) -> None:
        self._consumer.pause([TopicPartition(self._input, partition)])

    def close(self) -> None:
        """Leave the group, so that other workers need not wait for the end of the session.

        A named worker stays a member: the group waits for it.
        """
        self.transactions.close()
        self.questions.close()
        self._ends.close()
        self._consumer.close()
