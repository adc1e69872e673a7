"""A steady stream of records into the input topic, whatever happens to the broker. What the topic holds in the end is
the truth.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka import KafkaException, Message, Producer

from tests.crash.source import Sent

_TICK_S = 0.01
_CATCHES_UP_S = 2.0
"""A feeder that could not send for longer leaves out the rest: after a long pause it does not come back with a
flood.
"""

_PRODUCER: Final[dict[str, Any]] = {
    "enable.idempotence": True,
    "partitioner": "murmur2_random",
    "linger.ms": 5,
    "message.timeout.ms": 0,  # for ever: what was sent arrives when the broker is back
    "queue.buffering.max.messages": 50_000,
    "reconnect.backoff.max.ms": 500,
    "log_level": 2,
}


class Feeder:
    """Sends `rate` records a second from a thread of its own, from `start` to `stop`."""

    def __init__(self, bootstrap: str, topic: str, records: Iterator[Sent], rate: float) -> None:
        self._config = {**_PRODUCER, "bootstrap.servers": bootstrap}
        self._topic = topic
        self._records = records
        self._rate = rate
        self._producer = Producer(self._config)
        self._ended = threading.Event()
        self._sending = threading.Lock()
        self._failed = False
        self._thread = threading.Thread(target=self._feed, name="feeder", daemon=True)
        self.acknowledged = 0
        self.new_producers = 0
        """How often the client could not go on: its records may be in the topic or not."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send no more, and wait until the broker has what was sent."""
        self._ended.set()
        self._thread.join()
        left = self._producer.flush(60)
        if left:
            raise TimeoutError(f"{left} records did not reach {self._topic} within 60 s")

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Nothing is sent within the block, and the broker has all that was sent before."""
        with self._sending:
            if self._producer.flush(60):
                raise TimeoutError(f"not every record reached {self._topic} within 60 s")
            yield

    def _feed(self) -> None:
        began, sent = time.monotonic(), 0.0
        while not self._ended.wait(_TICK_S):
            due = (time.monotonic() - began) * self._rate
            sent = max(sent, due - _CATCHES_UP_S * self._rate)
            with self._sending:
                while sent < due and not self._ended.is_set():
                    self._send(next(self._records))
                    sent += 1
                self._producer.poll(0)
                if self._failed:
                    self._producer, self._failed = Producer(self._config), False
                    self.new_producers += 1

    def _send(self, record: Sent) -> None:
        key, value = record
        while not self._failed and not self._ended.is_set():
            try:
                self._producer.produce(self._topic, value, key, on_delivery=self._delivered)
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException:
                self._failed = True
            else:
                return

    def _delivered(self, error: object, _: Message) -> None:
        if error is None:
            self.acknowledged += 1
        else:
            self._failed = True
