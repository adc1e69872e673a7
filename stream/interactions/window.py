"""Which part of a topic is read: from where and until where, as times of its records or as offsets."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from confluent_kafka import Consumer, KafkaError, TopicPartition

from model.times import TimeRule
from stream.errors import ExportUnfit, KafkaUnusable
from stream.kafka.options import CHANGELOG_READER
from stream.kafka.read_topic import partitions
from stream.kafka.record_limits import reading

_ANSWERS_WITHIN_S: Final = 30.0
_BATCH: Final = 5000

Bound: TypeAlias = int | Mapping[int, int] | None
"""Epoch ms of records; or the offset of each partition; None: where the topic begins or ends."""
Ranges: TypeAlias = dict[int, tuple[int, int]]
"""Partition → the first offset, and the one after the last."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a topic. Offsets name some partitions; of the others everything is meant."""

    begin: Bound = None
    until: Bound = None

    def words(self) -> str:
        """The window in one line."""
        return f"from {_words(self.begin, 'the beginning')} until {_words(self.until, 'the end')}"


def _words(bound: Bound, everything: str) -> str:
    if isinstance(bound, Mapping):
        return ",".join(f"{number}:{offset}" for number, offset in sorted(bound.items()))
    return everything if bound is None else f"{bound} ms"


def bound(text: str) -> Bound:
    """A bound as it is typed: a time in ISO 8601, or `0:123,1:456` for offsets.

    Raises:
        ValueError: it is neither. The message says what was expected.
    """
    if (offsets := offsets_of(text)) is not None:
        return offsets
    try:
        ms = TimeRule().read(text) if "-" in text else None
    except ValueError:
        ms = None
    if ms is None:
        raise ValueError(f"is {text[:60]!r}, expected a time in ISO 8601, or PARTITION:OFFSET with commas between")
    return ms


def offsets_of(text: str) -> dict[int, int] | None:
    """Partition → offset, from `0:123,1:456`; None if it is no such text, or names a partition twice."""
    pairs = [part.strip().split(":") for part in text.split(",")]
    if not all(len(pair) == 2 and all(each.isascii() and each.isdigit() for each in pair) for pair in pairs):
        return None
    found = {int(partition): int(offset) for partition, offset in pairs}
    return found if len(found) == len(pairs) else None


def resolved(kafka: Mapping[str, Any], topic: str, window: Window) -> Ranges:
    """The offsets of a window, as the topic is now. It ends where a worker could read to now: before open transactions.

    Args:
        kafka: options of a client, `bootstrap.servers` among them.

    Raises:
        ExportUnfit: the topic does not have these offsets.
        TopicsUnusable: the topic does not exist, or may not be read.
    """
    numbers = partitions(kafka, topic)
    for each in (window.begin, window.until):
        if isinstance(each, Mapping) and (unknown := sorted(set(each) - set(numbers))):
            raise ExportUnfit(f"{topic} has no partition {unknown[0]}: its partitions are 0 to {numbers[-1]}")
    with closing(_asking(kafka)) as consumer:
        ends = _ends(consumer, topic, numbers)
        starts = _placed(consumer, topic, window.begin, {number: low for number, (low, _) in ends.items()}, ends)
        untils = _placed(consumer, topic, window.until, {number: high for number, (_, high) in ends.items()}, ends)
    for number, (low, high) in ends.items():
        if starts[number] < low:
            raise ExportUnfit(
                f"{topic}[{number}] begins at offset {low}: the records from {starts[number]} on were deleted (retention). "
                f"Begin at {number}:{low}, or leave the partition out"
            )
        if max(starts[number], untils[number]) > high:
            raise ExportUnfit(
                f"{topic}[{number}] can be read up to offset {high}, not to {max(starts[number], untils[number])}: records that are "
                "not there yet, or wait behind an open transaction"
            )
    return {number: (starts[number], max(starts[number], untils[number])) for number in numbers}


def readable(kafka: Mapping[str, Any], topic: str) -> Ranges:
    """Partition → the first offset that the topic still has, and the one after the last committed record."""
    numbers = partitions(kafka, topic)
    with closing(_asking(kafka)) as consumer:
        return _ends(consumer, topic, numbers)


def _asking(kafka: Mapping[str, Any]) -> Consumer:
    return Consumer(reading({**CHANGELOG_READER, "log_level": 3, **kafka}))


def _ends(consumer: Consumer, topic: str, numbers: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Partition → the first offset, and the one after the last that a reader of committed records can read now.

    Raises:
        KafkaUnusable: the topic cannot be read.
    """
    found = {
        number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_ANSWERS_WITHIN_S)
        for number in numbers
    }
    # The embedded broker's answer leaves out its last batch. A reader that begins there comes to the end at once.
    highs = {number: high for number, (_, high) in found.items()}
    consumer.assign([TopicPartition(topic, number, high) for number, high in highs.items()])
    unread, deadline = set(numbers), time.monotonic() + _ANSWERS_WITHIN_S
    while unread and time.monotonic() < deadline:
        for message in consumer.consume(_BATCH, 0.1):
            number, error = message.partition() or 0, message.error()
            if error is None:
                highs[number] = max(highs[number], (message.offset() or 0) + 1)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                highs[number] = max(highs[number], message.offset() or 0)
                unread.discard(number)
            elif error.fatal() or not error.retriable():
                raise KafkaUnusable(f"{topic}[{number}] cannot be read: {error}")
    consumer.unassign()
    return {number: (low, highs[number]) for number, (low, _) in found.items()}


def _placed(
    consumer: Consumer, topic: str, bound: Bound, default: Mapping[int, int], ends: Mapping[int, tuple[int, int]]
) -> dict[int, int]:
    """The offset of a bound in each partition."""
    if bound is None:
        return dict(default)
    if isinstance(bound, Mapping):
        return {**default, **bound}
    asked = [TopicPartition(topic, number, bound) for number in ends]
    # The offset of the first record that has this timestamp or a later one. Without one, Kafka answers -1.
    found = {each.partition: each.offset for each in consumer.offsets_for_times(asked, timeout=_ANSWERS_WITHIN_S)}
    return {number: high if found[number] < 0 else min(found[number], high) for number, (_, high) in ends.items()}
