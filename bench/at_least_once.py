"""A worker without transactions, for bench.guarantee alone: `python -m bench.at_least_once [--asynchronous]`.

This is the worker of `rec2pm worker`, with its settings and steps, but its link to Kafka has another producer. It
produces, waits until everything is delivered, and commits the offsets with the consumer. With --asynchronous it does
not wait for the answer to the commit. A crash in between publishes the step twice. It does not check for records that
the broker refused, which a real program of this kind would have to do.
"""

import logging
import os
import sys
from collections.abc import Sequence

from confluent_kafka import Consumer, Producer, TopicPartition

from stream import compose
from stream.kafka.link import KafkaLink
from stream.kafka.options import logger_of
from stream.settings import Settings


class WithoutTransactions:
    """A producer with the calls of a transactional one, which makes no transactions."""

    def __init__(self, producer: Producer, consumer: Consumer, *, asynchronous: bool) -> None:
        self.produce, self.poll, self.flush = producer.produce, producer.poll, producer.flush
        self._consumer, self._asynchronous = consumer, asynchronous
        self._offsets: list[TopicPartition] = []

    def init_transactions(self, _timeout: float) -> None:
        pass

    def begin_transaction(self) -> None:
        pass

    def send_offsets_to_transaction(self, offsets: Sequence[TopicPartition], _group: object, _timeout: float) -> None:
        self._offsets = list(offsets)

    def commit_transaction(self, timeout: float) -> None:
        left = self.flush(timeout)
        if left:
            raise RuntimeError(f"{left} records were not delivered within {timeout:.0f} s")
        self._consumer.commit(offsets=self._offsets, asynchronous=self._asynchronous)


class AtLeastOnceLink(KafkaLink):
    """`KafkaLink` with such a producer. It is idempotent, as a transactional one is."""

    asynchronous = False

    def _new_producer(self) -> WithoutTransactions:
        settings = {name: value for name, value in self._producing.items() if not name.startswith("transaction")}
        producer = Producer({**settings, "enable.idempotence": True}, logger=logger_of("producer"))
        return WithoutTransactions(producer, self._consumer, asynchronous=self.asynchronous)


def main() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    AtLeastOnceLink.asynchronous = "--asynchronous" in sys.argv[1:]
    compose.KafkaLink = AtLeastOnceLink
    compose.run_worker(Settings.from_environ(os.environ))


if __name__ == "__main__":
    main()
