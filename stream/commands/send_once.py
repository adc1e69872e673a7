"""`rec2pm produce --resume`: each interaction of a log once, whatever is killed on the way.

The place in the log is an offset that a group of Kafka has committed. Records and place are committed in one
transaction, so they never disagree. The transactional id ends an earlier process of the same run: what it had under way
is aborted, or committed before this one reads the place.

A file names the run and its log. Kafka forgets a place that nobody renews (`offsets.retention.minutes`, a week). The
file says whether there must be one: a run whose place is gone is refused, not begun again.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from model.version.file_lock import lock
from stream.commands.pace import Pace
from stream.commands.send_log import PRODUCER, Rows, queued
from stream.durable_files import write_durably
from stream.errors import Fenced, KafkaUnusable, ProduceUnfit
from stream.kafka.errors import explained, is_fatal
from stream.kafka.names import produce_id
from stream.kafka.rights import publishing_run
from stream.kafka.until_done import CALL_S, until_done

TICK_S: Final = 0.1
"""A transaction costs about as much as a thousand records."""
_ANSWERS_WITHIN_S: Final = 30.0
_TRANSACTIONAL: Final[Mapping[str, Any]] = {
    "transaction.timeout.ms": 60_000,
    "log_level": 3,  # a coordinator that is still loading is not worth a line
}


class Run(msgspec.Struct, frozen=True):
    """What the file says."""

    id: str
    topic: str
    topic_id: str
    """Kafka's; empty if the broker has no topic ids."""
    sha256: str
    """Of the interactions, in their order."""
    rows: int
    begun: bool
    """Kafka has had a place in the log."""


class RunFile:
    """The file of a run, which this process alone uses until `close`."""

    def __init__(self, path: Path) -> None:
        """Raises:
        ProduceUnfit: another process uses it, or it cannot be made.
        """
        self.path = path
        self._lock = path.with_name(f".{path.name}.lock")
        try:
            descriptor = lock(self._lock)
        except OSError as error:
            raise ProduceUnfit(f"{path} cannot be used to note what was sent: {error}") from error
        if descriptor is None:
            raise ProduceUnfit(f"{path}: another process sends the log of this run")
        self._descriptor = descriptor

    def close(self) -> None:
        self._lock.unlink(missing_ok=True)
        os.close(self._descriptor)

    def run(self, rows: Rows, topic: str, topic_id: str) -> Run:
        """The run that the file names; a new one if there is no file.

        Raises:
            ProduceUnfit: it is of another log or topic, or no file of a run.
        """
        now = Run(secrets.token_hex(8), topic, topic_id, rows.sha256(), len(rows), begun=False)
        if not self.path.exists():
            self.write(now)
            return now
        try:
            noted = msgspec.json.decode(self.path.read_bytes(), type=Run)
        except (OSError, msgspec.DecodeError) as error:
            raise ProduceUnfit(f"{self.path} is no note of what was sent: {error}") from error
        for what, before, after in (
            ("topic", noted.topic, now.topic),
            ("topic id", noted.topic_id, now.topic_id),
            ("log of so many interactions", noted.rows, now.rows),
            ("log with this SHA-256", noted.sha256, now.sha256),
        ):
            if before != after:
                raise ProduceUnfit(
                    f"{self.path} notes another run: its {what} is {before}, this one is {after}. Go on with the same log, --limit and "
                    "topic, or name another file"
                )
        return noted

    def write(self, run: Run) -> None:
        write_durably(self.path, msgspec.json.format(msgspec.json.encode(run)) + b"\n")


class Sender:
    """Sends a run from its place on."""

    def __init__(self, kafka: Mapping[str, Any], app: str, file: RunFile, run: Run) -> None:
        """End an earlier process of the run, and find its place.

        Args:
            kafka: options of the clients.

        Raises:
            ProduceUnfit: Kafka no longer has the place.
            KafkaUnusable: the right to the transactional id is missing.
        """
        self._kafka, self._run = kafka, run
        self._group: Final = produce_id(app, run.id)
        self._metadata: object = None
        """Names the group to Kafka. Nobody is a member of it, so it fences nothing: the transactional id does that."""
        own = {**PRODUCER, **_TRANSACTIONAL, **kafka, "transactional.id": self._group}
        own.pop("group.id", None)
        self._producer: Final = Producer(own)
        try:
            until_done(lambda: self._producer.init_transactions(CALL_S))
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
                raise KafkaUnusable(publishing_run(app, run.id).line()) from error
            raise
        self.place = self._found(file)

    def send(
        self,
        rows: Rows,
        pace: Pace,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        progress: Callable[[int, int], None],
    ) -> int:
        """Send what is left; returns how many interactions that were.

        Raises:
            Fenced: another process of this run began.
            KafkaUnusable: Kafka refused a transaction, or did not answer.
        """
        first = self.place
        for start, end in pace.chunks(rows.times(first), clock, sleep):
            self._commit(rows, first + start, first + end)
            self.place = first + end
            progress(self.place, len(rows))
        return self.place - first

    def _found(self, file: RunFile) -> int:
        with closing(self._consumer()) as consumer:
            self._metadata = consumer.consumer_group_metadata()
            (found,) = consumer.committed([TopicPartition(self._run.topic, 0)], timeout=_ANSWERS_WITHIN_S)
        if found.offset < 0 and self._run.begun:
            raise ProduceUnfit(
                f"Kafka no longer has the place in the log of run {self._run.id}: nobody went on with it for offsets.retention.minutes. "
                f"Compare the log with {self._run.topic} (`rec2pm interactions export`), and send what is missing as a log of its own"
            )
        if found.offset < 0:
            # Nothing was sent: records come after the file says that there is a place.
            self._commit(None, 0, 0)
        if not self._run.begun:
            file.write(msgspec.structs.replace(self._run, begun=True))
        return max(int(found.offset), 0)

    def _commit(self, rows: Rows | None, start: int, end: int) -> None:
        """Send a range, and note its end, in one transaction."""
        producer, topic = self._producer, self._run.topic
        try:
            producer.begin_transaction()
            for key, value in () if rows is None else rows.records(start, end):
                queued(producer, topic, key, value)
            place = [TopicPartition(topic, 0, end)]
            until_done(partial(producer.send_offsets_to_transaction, place, self._metadata, CALL_S))
            until_done(partial(producer.commit_transaction, CALL_S))
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if is_fatal(reason):
                raise Fenced(
                    f"another process of run {self._run.id} began and ended this one: {reason.str()}"
                ) from error
            with suppress(KafkaException):
                producer.abort_transaction(CALL_S)
            raise KafkaUnusable(
                f"Kafka did not confirm the interactions {start} to {end} of the log: {explained(reason)}. Run the command again: it "
                "goes on where it was"
            ) from error

    def _consumer(self) -> Consumer:
        """One that never joins."""
        options = {"isolation.level": "read_committed", **self._kafka, "group.id": self._group, "log_level": 3}
        options.pop("partitioner", None)
        return Consumer(options)
