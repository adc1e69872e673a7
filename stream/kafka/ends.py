"""Finds offsets that hold no record: markers of transactions, aborted records, and what compaction removed.

A worker's position is behind its last record. Kafka's end of the partition is behind what follows that record as well.
A reader of its own begins at the position. If it reaches the end before a record comes, there is none in between.

The group's consumer could report its ends by itself (`enable.partition.eof`). But after such a report librdkafka before
2.13.2 takes its own position for one higher (#4844), and after a rebalance it continues there: a record is skipped.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from stream.kafka.options import logger_of
from stream.ports import Empty

logger = logging.getLogger(__name__)

_WITHIN_S: Final = 5.0
_WAIT_S: Final = 0.05
_FEW: Final[Mapping[str, Any]] = {"queued.min.messages": 1, "log_level": 3}
"""The reader wants to know whether there are records, not to have them. Deleted offsets are no reason to log."""


class Ends:
    """Looks for the ends of an input's partitions, one look at a time, on a thread of its own."""

    def __init__(self, *, topic: str, config: Mapping[str, Any], clock: Callable[[], float]) -> None:
        """Args:
        config: of a consumer: read_committed, `enable.partition.eof`, `auto.offset.reset=error`.
        clock: monotonic seconds.
        """
        self._topic = topic
        self._config = {**config, **_FEW}
        self._clock = clock
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="ends")
        self._asked: Future[dict[int, Empty]] | None = None
        self._closing = False

    def look(self, positions: Mapping[int, int]) -> None:
        """Look whether the partitions hold records from these positions on. A look that is under way goes on."""
        if positions and self._asked is None:
            self._asked = self._threads.submit(self.now, positions)

    def found(self) -> Mapping[int, Empty] | None:
        """What the last look found, once; None while there is nothing to tell."""
        if self._asked is None or not self._asked.done():
            return None
        found, self._asked = self._asked.result(), None
        return found

    @property
    def looking(self) -> bool:
        return self._asked is not None

    def now(self, positions: Mapping[int, int]) -> dict[int, Empty]:
        """Look, and wait for the answer. Partitions that hold a record, or that Kafka does not answer for, lack."""
        found: dict[int, Empty] = {}
        left = dict(positions)
        until = self._clock() + _WITHIN_S
        try:
            with closing(Consumer(self._config, logger=logger_of("ends"))) as reader:
                reader.assign([TopicPartition(self._topic, number, offset) for number, offset in left.items()])
                while left and self._clock() < until and not self._closing:
                    for message in reader.consume(100, _WAIT_S):
                        number, error = message.partition(), message.error()
                        if number is None or (start := left.pop(number, None)) is None:
                            continue
                        if error is not None and error.code() == KafkaError._PARTITION_EOF:
                            found[number] = Empty(start, message.offset() or 0)
        except KafkaException as error:
            logger.info("no look for the ends of %s: %s", self._topic, error)
        return {number: empty for number, empty in found.items() if empty.end > empty.start}

    def close(self) -> None:
        """End a look that is under way, without its answer."""
        self._closing = True
        self._threads.shutdown(cancel_futures=True)
