"""Reads the interactions topic into the training log, as the only member of the group `<app>.trainer`.

The group is a lock, too: Kafka gives the partitions to its members, and a trainer works only while it has all of them.
So two trainers of one application never learn at the same time, wherever they run. A trainer that was killed comes back
under the name of its log, as the same member (static membership), and goes on at once. Offsets that the group commits
are for those who watch its lag; where to read on is in the log.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from stream.errors import KafkaUnusable, TrainerElsewhere, TrainingLogUnfit
from stream.kafka.errors import NOT_ALLOWED, comes_back, explained, is_fatal, stop
from stream.kafka.names import trainer_group, trainer_id
from stream.kafka.options import logger_of
from stream.kafka.record_limits import reading
from stream.rows import Batch, Reader
from stream.trainer.log import TrainingLog
from stream.trainer.points import At, Point, passing
from stream.wire import Record

logger = logging.getLogger(__name__)

_BATCH: Final = 5000
_ASK_S: Final = 5.0
WRITE_EVERY_S: Final = 60.0
WRITE_ROWS: Final = 100_000
"""A batch is written when it is this old, or has so many rows together with those of other partitions."""
_LOG_EVERY_S: Final = 10.0
_WAIT_FOR_OTHERS_S: Final = 40.0
"""A member that has ended stays in the group until its session ends, 10 s by default."""

_HOPELESS: Final = NOT_ALLOWED | {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}

CONSUMER: Final[Mapping[str, Any]] = {
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "partition.assignment.strategy": "range",
    "session.timeout.ms": 10_000,
    "max.poll.interval.ms": 300_000,
    "fetch.queue.backoff.ms": 10,
    "queued.min.messages": 50_000,
    "queued.max.messages.kbytes": 32_768,
}


class Collector:
    """Brings the log up to date, batch by batch."""

    def __init__(
        self,
        *,
        kafka: Mapping[str, Any],
        app: str,
        name: str,
        topic: str,
        log: TrainingLog,
        reader: Reader,
        clock: Callable[[], float],
        stopping: Callable[[], bool],
        at: At = passing,
    ) -> None:
        """Args:
        kafka: options of a client; they come before ours.
        name: of the trainer, the same after a restart.
        clock: monotonic seconds.
        stopping: whether the trainer was asked to stop.
        """
        self._topic, self._log, self._reader, self._clock, self._at = topic, log, reader, clock, at
        self._stopping = stopping
        self._group: Final = trainer_group(app)
        self._admin: Final = AdminClient({**kafka}, logger=logger_of("trainer"))
        self._name: Final = trainer_id(app, name)
        own = {**CONSUMER, **kafka, "client.id": self._name, "group.id": self._group, "group.instance.id": self._name}
        own["on_commit"] = self._confirmed
        self._consumer: Final = Consumer(reading(own), logger=logger_of("trainer"))
        self._batches: dict[int, Batch] = {}
        self._ended: set[int] = set()
        """Partitions that were read to their end since they were assigned."""
        self._committed: dict[int, int] = {}
        """What Kafka has confirmed of this group's offsets since the partitions were assigned."""
        self._width = 0
        self._written_at = clock()
        self._said_at = float("-inf")
        self._elsewhere: str | None = None
        self.writes = 0
        """How often the log was written to."""

    @property
    def has_all(self) -> bool:
        """Whether this process has all partitions, so that no other trainer of the application works."""
        return 0 < self._width == len(self._batches)

    @property
    def buffered(self) -> int:
        """Rows that are not written down yet."""
        return sum(map(len, self._batches.values()))

    @property
    def caught_up(self) -> bool:
        """Whether every partition was read to its end."""
        return self.has_all and len(self._ended) == self._width

    def start(self) -> None:
        """Join the group, once no other trainer is in it.

        Raises:
            TrainerElsewhere: another trainer of this application runs.
            KafkaUnusable: the topic cannot be read.
        """
        self._width = self._partitions()
        self._wait_for_others()
        self._consumer.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._gone, on_lost=self._gone)

    def poll(self, wait_s: float) -> int:
        """Read what is there, and write it down if it is time to. Returns how many records came.

        Raises:
            TrainerElsewhere, TrainingLogUnfit, KafkaUnusable.
            OSError: the log could not be written.
        """
        try:
            messages = self._consumer.consume(_BATCH, wait_s)
        except KafkaException as error:
            stop(error, f"reading {self._topic}")
        if self._elsewhere is not None:
            raise TrainerElsewhere(self._elsewhere)
        # Within the call the partitions may have gone to another member: their records are read again by it.
        records = [each for each in messages if each.error() is None and each.partition() in self._batches]
        self._reader.read(cast("Sequence[Record]", records), self._batches)
        for message in messages:
            if (wrong := message.error()) is not None:
                self._look_at(message, wrong)
        if records:
            self._at(Point.READ)
        if self._clock() - self._written_at >= WRITE_EVERY_S or self.buffered >= WRITE_ROWS:
            self.write()
        return len(records)

    def write(self) -> None:
        """Write down what was read, and commit its offsets.

        Raises:
            OSError: the log could not be written.
        """
        new = {partition: batch for partition, batch in self._batches.items() if batch.next > batch.first}
        for partition, batch in new.items():
            self._log.append(partition, batch)
            self._batches[partition] = Batch(batch.next, batch.next)
        self._written_at = self._clock()
        self._commit()
        if new:
            self.writes += 1
            self._at(Point.COMMITTED)

    def _commit(self) -> None:
        """Commit what the log has and Kafka has not confirmed. An earlier process may have ended before it could."""
        behind = [
            TopicPartition(self._topic, partition, batch.first)
            for partition, batch in self._batches.items()
            if batch.first != self._committed.get(partition, 0)
        ]
        if behind:
            try:
                self._consumer.commit(offsets=behind, asynchronous=True)
            except KafkaException as error:
                logger.debug("offsets not committed, tried again: %s", error)

    def _confirmed(self, error: KafkaError | None, places: Sequence[TopicPartition]) -> None:
        """Kafka's answer to a commit. What it did not take is committed again with the next one."""
        if error is not None:
            logger.debug("offsets not committed, tried again: %s", error)
        self._committed |= {place.partition: place.offset for place in places if error is None and place.error is None}

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _partitions(self) -> int:
        known = self._consumer.list_topics(self._topic, timeout=_ASK_S).topics[self._topic]
        if known.error is not None:
            raise KafkaUnusable(f"{self._topic} cannot be read: {explained(known.error)}")
        return len(known.partitions)

    def _wait_for_others(self) -> None:
        deadline = self._clock() + _WAIT_FOR_OTHERS_S
        said = False
        while (others := self._members()) and not self._stopping():
            if self._clock() > deadline:
                raise TrainerElsewhere(self._words(", ".join(others)))
            if not said:
                logger.info("waiting for another trainer of this application to leave: %s", ", ".join(others))
                said = True
            time.sleep(0.5)

    def _members(self) -> list[str]:
        """Who else is in the group. Empty if the broker cannot say: the assignment tells."""
        (asked,) = self._admin.describe_consumer_groups([self._group], request_timeout=_ASK_S).values()
        try:
            members = asked.result(2 * _ASK_S).members
        except (KafkaException, TimeoutError) as error:
            logger.debug("members of %s: %s", self._group, error)
            return []
        # An earlier process of this very trainer is gone, because this one has the lock of its log.
        return [f"{member.client_id} at {member.host}" for member in members if member.client_id != self._name]

    def _words(self, who: str) -> str:
        return (
            f"another trainer of this application runs ({who}): the group {self._group} has one member at a time. Stop that one "
            "first, or give this one a REC2PM_APP of its own"
        )

    def _assigned(self, consumer: Consumer, given: Sequence[TopicPartition]) -> None:
        self._width = max(self._width, self._partitions())
        numbers = {each.partition for each in given}
        if len(numbers) < self._width and 0 not in numbers:
            # The member that has partition 0 stays. Members that came at the same moment agree on that.
            self._elsewhere = self._words("it has joined the group at the same time")
            return
        self._batches = {}
        self._ended = set()
        self._committed = {}
        places = []
        for number in sorted(numbers):
            start = self._log.next(number)
            self._batches[number] = Batch(start or 0, start or 0)
            places.append(TopicPartition(self._topic, number, OFFSET_BEGINNING if start is None else start))
        consumer.assign(places)
        logger.info("reading %s: %d of %d partitions", self._topic, len(numbers), self._width)

    def _gone(self, consumer: Consumer, _: Sequence[TopicPartition]) -> None:
        """What was not written down is read again."""
        self._batches, self._ended = {}, set()
        consumer.unassign()

    def _look_at(self, message: Message, error: KafkaError) -> None:
        """Raise the error for a message without a record, if it ends the process."""
        code, number = error.code(), message.partition()
        if code == KafkaError._PARTITION_EOF:
            self._at_end(number or 0, message.offset() or 0)
        elif code == KafkaError._AUTO_OFFSET_RESET:
            self._begin_again(number or 0)
        elif is_fatal(error):
            raise TrainerElsewhere(self._words(f"it took over: {error.str()}"))
        elif code in _HOPELESS:
            raise KafkaUnusable(f"reading {self._topic}: {explained(error)}")
        elif self._clock() - self._said_at > _LOG_EVERY_S:
            self._said_at = self._clock()
            logger.warning("waiting for Kafka call=consume reason=%s", error)

    def _at_end(self, number: int, end: int) -> None:
        if (batch := self._batches.get(number)) is not None:
            # Behind the last record there may be markers of transactions, and aborted records.
            batch.next = max(batch.next, end)
            self._ended.add(number)

    def _begin_again(self, number: int) -> None:
        """The topic does not have the offset that comes next: records were deleted before they were read.

        Raises:
            TrainingLogUnfit: the log reaches further than the topic.
        """
        batch = self._batches.get(number)
        if batch is None:
            return
        place = TopicPartition(self._topic, number)
        try:
            low, high = self._consumer.get_watermark_offsets(place, timeout=_ASK_S)
        except KafkaException as error:
            if not comes_back(error.args[0]):
                stop(error, f"ends of {self._topic}[{number}]")
            low, high = batch.next, batch.next  # asked again with the next error
        if batch.next > high:
            raise TrainingLogUnfit(
                f"the training log reaches offset {batch.next} of {self._topic}[{number}], which ends at {high}: the topic was deleted "
                "and created again, or Kafka lost records. Name another folder with --log"
            )
        if batch.next < low:
            logger.warning(
                "%s[%d]: the %d offsets from %d to %d were deleted before they were read: the training log lacks their interactions",
                self._topic,
                number,
                low - batch.next,
                batch.next,
                low,
            )
            batch.next = low
        self._consumer.assign([TopicPartition(self._topic, each, other.next) for each, other in self._batches.items()])
