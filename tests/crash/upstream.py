"""A program that writes interactions in transactions: it commits some, aborts others, and is idle in between.

What it aborts never counts, and each transaction leaves a marker in every partition that it wrote to.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from tests.crash.source import Sent

ABORTED_SHARE: Final = 0.3
LARGEST: Final = 40
"""Records in one transaction, at most."""
OPEN_S: Final = (0.0, 0.3)
IDLE_S: Final = (0.0, 1.5)
_CALL_S: Final = 20.0
_REST_WITHIN_S: Final = 60.0

_PRODUCER: Final[dict[str, Any]] = {
    "partitioner": "murmur2_random",
    "transaction.timeout.ms": 10_000,
    "reconnect.backoff.max.ms": 500,
    "log_level": 2,
}


class Upstream:
    """Writes from a thread of its own, from `start` to `stop`."""

    def __init__(
        self, bootstrap: str, topic: str, records: Iterator[Sent], chosen: random.Random, name: str = "upstream"
    ) -> None:
        self._config = {**_PRODUCER, "bootstrap.servers": bootstrap, "transactional.id": name}
        self._topic = topic
        self._records = records
        self._chosen = chosen
        self._ended = threading.Event()
        self._in_transaction = threading.Lock()
        self._thread = threading.Thread(target=self._write, name=name, daemon=True)
        self.transactions: Final = Counter[str]()
        """How transactions ended: committed, aborted, or failed: then Kafka decided."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the present transaction, and write no more."""
        self._ended.set()
        self._thread.join()

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """No transaction is open within the block."""
        if not self._in_transaction.acquire(timeout=_REST_WITHIN_S):
            raise TimeoutError(f"a transaction of the upstream writer lasts for more than {_REST_WITHIN_S:.0f} s")
        try:
            yield
        finally:
            self._in_transaction.release()

    def _write(self) -> None:
        producer: Producer | None = None
        while not self._ended.wait(self._chosen.uniform(*IDLE_S)):
            with self._in_transaction:
                try:
                    if producer is None:
                        producer = Producer(self._config)
                        producer.init_transactions(_CALL_S)
                    ended = self._transaction(producer)
                except (KafkaException, BufferError):
                    # It may be committed or aborted. A new producer ends it if it is still open.
                    ended, producer = "failed", None
            self.transactions[ended] += 1

    def _transaction(self, producer: Producer) -> str:
        commits = self._chosen.random() >= ABORTED_SHARE
        producer.begin_transaction()
        for _ in range(self._chosen.randint(1, LARGEST)):
            key, value = next(self._records)
            producer.produce(self._topic, value, key)
        if producer.flush(_CALL_S):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        time.sleep(self._chosen.uniform(*OPEN_S))
        if commits:
            producer.commit_transaction(_CALL_S)
            return "committed"
        producer.abort_transaction(_CALL_S)
        return "aborted"
