"""The topic `<app>.models`: read by workers and commands, written by promoters and by the reports of workers.

It has one partition. Nobody reads it in a group: each reader wants all of it, from the start.
"""

import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from stream.errors import BehindOpenTransaction, KafkaUnusable, PromotionConflict
from stream.kafka.errors import comes_back, explained, is_fatal
from stream.kafka.names import models_topic, promote_id, reader_group
from stream.kafka.options import CHANGELOG_READER, logger_of
from stream.kafka.read_topic import committed_records, partitions
from stream.kafka.record_limits import reading
from stream.kafka.rights import publishing_promotions
from stream.kafka.until_done import CALL_S, until_done
from stream.promotion.record import (
    Models,
    Promotion,
    Report,
    alias_key,
    encode,
    in_words,
    promotion_key,
    worker_key,
)

logger = logging.getLogger(__name__)

PARTITION: Final = 0
_BATCH: Final = 1000
_PROMOTER: Final[Mapping[str, Any]] = {
    # A promoter that is killed holds readers back for so long, or until the next promoter begins.
    "transaction.timeout.ms": 10_000,
    "log_level": 3,  # a coordinator that is still loading is not worth a line
}
_REPORTER: Final[Mapping[str, Any]] = {
    "enable.idempotence": True,
    "message.timeout.ms": 30_000,
    "log_level": 3,  # the worker's other clients say it when Kafka is away
}
_AGAIN_AFTER_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.2
_ENDS_WITHIN_S: Final = 4.0
"""An answer to a client that comes while the interpreter ends would end the process with a signal."""
_NEVER: Final = object()


class ModelsReader:
    """Follows the topic from its start. Not shared between threads.

    It waits while Kafka is away or the topic is missing, and starts over with a topic that was created again.
    """

    def __init__(self, options: Mapping[str, Any], app: str) -> None:
        """Args:
        options: `bootstrap.servers` and the options of `REC2PM_KAFKA_*`.
        """
        self._topic = models_topic(app)
        self._consumer = Consumer(
            reading(
                {"logger": logger_of("models"), **CHANGELOG_READER, "log_level": 3, "group.id": reader_group(app)}
                | dict(options)
            )
        )
        self.models = Models()
        self.at_end = False
        """True once everything is read that was committed when the reading began."""
        self._begin()

    def _begin(self) -> None:
        self.models, self.at_end = Models(), False
        self._consumer.assign([TopicPartition(self._topic, PARTITION, OFFSET_BEGINNING)])

    def poll(self, timeout_s: float) -> bool:
        """Take in what there is; wait at most so long for the first of it. True if `models` or `at_end` changed.

        Raises:
            KafkaUnusable: the topic may not be read. A later call tries again.
        """
        first = self._consumer.poll(timeout_s)
        if first is None:
            return False
        changed = False
        for message in [first, *self._consumer.consume(_BATCH, 0)]:
            changed |= self._take(message)
        return changed

    def _take(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            self.models.apply(message.key() or b"", message.value())
            return True
        if error.code() == KafkaError._PARTITION_EOF:
            # The client reports the last stable offset; behind it there may be committed records.
            place = TopicPartition(self._topic, PARTITION)
            high: int = self._consumer.get_watermark_offsets(place, cached=True)[1]
            reached, self.at_end = self.at_end, self.at_end or (message.offset() or 0) >= high
            return self.at_end != reached
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            logger.warning("%s was deleted and created again, or cut short: reading it from the start", self._topic)
            self._begin()
            return True
        if not comes_back(error):
            raise KafkaUnusable(f"{self._topic} cannot be read: {explained(error)}")
        return False

    def close(self) -> None:
        self._consumer.close()


def read_models(options: Mapping[str, Any], app: str) -> Models:
    """What the topic says now.

    Raises:
        TopicsUnusable: the topic does not exist, or may not be read.
        BehindOpenTransaction: a transaction is open, and records wait behind it.
        KafkaUnusable: it cannot be read.
    """
    models, topic = Models(), models_topic(app)
    partitions(options, topic)
    for message in committed_records(options, topic, PARTITION):
        models.apply(message.key() or b"", message.value())
    return models


def publish(options: Mapping[str, Any], app: str, promotion: Promotion) -> None:
    """Write the alias and the history in one transaction.

    The transactional id ends another promoter that is under way, and what a killed one left open. Then the topic is
    read to its end, and the alias compared with what the promoter saw.

    Raises:
        PromotionConflict: somebody else promoted since; nothing is written.
        TopicsUnusable, BehindOpenTransaction: the topic cannot be read; nothing is written.
        KafkaUnusable: Kafka refused it, or did not confirm it: then the message says so.
    """
    own = {**_PROMOTER, **options, "transactional.id": promote_id(app)}
    own.pop("group.id", None)
    producer = Producer(own)
    try:
        until_done(partial(producer.init_transactions, CALL_S))
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            raise KafkaUnusable(publishing_promotions(app).line()) from error
        raise
    _refuse_conflict(promotion, read_models(options, app))
    try:
        producer.begin_transaction()
        value, topic = encode(promotion), models_topic(app)
        producer.produce(topic, value, promotion_key(promotion.id), PARTITION)
        producer.produce(topic, value, alias_key(promotion.alias), PARTITION)
        until_done(partial(producer.commit_transaction, CALL_S))
    except KafkaException as error:
        _settle(options, app, promotion, producer, error)


def _refuse_conflict(promotion: Promotion, models: Models) -> None:
    current = models.aliases.get(promotion.alias)
    if (None if current is None else current.id) == promotion.expected:
        return
    seen = None if promotion.expected is None else models.history.get(promotion.expected)
    now = "the alias was removed" if current is None else in_words(current)
    before = (
        f"nothing was {promotion.alias}"
        if promotion.expected is None
        else f"{promotion.alias} was {promotion.previous or promotion.expected}"
        if seen is None
        else f"{promotion.alias} was {seen.version}"
    )
    raise PromotionConflict(
        f"{promotion.version} is not promoted: {now}, and {before} when this promotion looked. If {promotion.version} is "
        "to replace it, run the command again"
    )


def _settle(
    options: Mapping[str, Any], app: str, promotion: Promotion, producer: Producer, error: KafkaException
) -> None:
    """After a transaction that failed: return if it was committed after all, and raise what it means if not."""
    reason: KafkaError = error.args[0]
    if not is_fatal(reason):
        with suppress(KafkaException):
            producer.abort_transaction(CALL_S)
    models: Models | None = None
    with suppress(KafkaException, KafkaUnusable, BehindOpenTransaction):
        models = read_models(options, app)
    if models is not None and promotion.id in models.history:
        return
    if is_fatal(reason):
        current = None if models is None else models.aliases.get(promotion.alias)
        changed = current is not None and current.id != promotion.expected
        other = in_words(current) if changed and current is not None else "`rec2pm models history` will show it"
        raise PromotionConflict(
            f"{promotion.version} is not promoted: another promotion began and ended this one: {other} ({reason.str()})"
        ) from error
    if models is not None:
        raise KafkaUnusable(f"{promotion.version} is not promoted: Kafka refused it: {explained(reason)}") from error
    raise KafkaUnusable(
        f"Kafka did not confirm that {promotion.version} is promoted: {explained(reason)}. `rec2pm models history` says "
        "whether it is, once Kafka answers"
    ) from error


class Reporter:
    """Writes what a worker does with models. A thread does it: no call waits, and none raises.

    Only the newest report counts. What cannot be written is logged once and tried again.
    """

    def __init__(self, options: Mapping[str, Any], app: str, worker: str) -> None:
        self._options = {**_REPORTER, **options}
        self._options.pop("group.id", None)
        self._topic, self._key = models_topic(app), worker_key(worker)
        self._due: object = _NEVER
        """The value that is to be written: bytes, None for a null value, or `_NEVER`."""
        self._written: object = _NEVER
        self._changed = threading.Condition()
        self._ended = False
        self._producer: Producer | None = None
        self._said: str | None = None
        self._thread = threading.Thread(target=self._run, name="models-reporter", daemon=True)
        self._thread.start()

    def report(self, report: Report) -> None:
        """Write this as soon as possible, in place of an earlier report that is not written yet."""
        self._set(encode(report))

    def gone(self) -> None:
        """Delete the worker's report, at a clean stop. Waits a few seconds at most."""
        self._set(None)
        with self._changed:
            self._changed.wait_for(lambda: self._written is self._due, _ENDS_WITHIN_S)

    def close(self) -> None:
        """End. What is not written by then is left out."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(_ENDS_WITHIN_S)

    def _set(self, value: bytes | None) -> None:
        with self._changed:
            self._due = value
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._due is not self._written)
                if self._ended:
                    break
                value = self._due
            why = self._failure(value)
            with self._changed:
                if why is None:
                    self._written = value
                    self._changed.notify_all()
                elif not self._ended:
                    if why != self._said:
                        logger.warning("what this worker serves is not reported for the moment: %s", why)
                    self._changed.wait_for(lambda: self._ended, _AGAIN_AFTER_S)
                self._said = why
        if self._producer is not None:
            self._producer.purge()
            self._producer = None

    def _failure(self, value: object) -> str | None:
        """Write one value. Returns why it was not written; None if it was."""
        answers: list[KafkaError | None] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            answers.append(error)

        try:
            self._producer = self._producer or Producer(self._options, logger=logger_of("models"))
            self._producer.produce(self._topic, value, self._key, PARTITION, on_delivery=delivered)
            while not answers:
                if self._ended:
                    return "the worker stops"
                self._producer.poll(_LOOK_EVERY_S)
        except (KafkaException, BufferError) as error:
            self._producer = None
            return str(error)
        (answer,) = answers
        if answer is not None:
            # A producer that cannot go on refuses everything from then on.
            self._producer = None
            return explained(answer)
        return None
