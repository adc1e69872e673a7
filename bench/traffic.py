"""A steady load on a worker's input, and the lists that a read_committed reader gets.

Every interaction has its own user, so each gets a list, and the two ends can be matched. The time of an interaction is
the producer's clock, in ms, and comes back as the list's `as_of`. The producer chooses the partition itself, so that a
partition without lists can only be the worker's doing.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgpack
import numpy as np
from confluent_kafka import Consumer, Message, Producer, TopicPartition


@dataclass(frozen=True, slots=True)
class Seen:
    """One list that the reader has read. Times are epoch seconds."""

    arrived: float
    partition: int
    """Of the input."""
    offset: int
    sent: float
    """To the millisecond."""
    made: float
    """When the worker gave it to its producer, to the millisecond."""


@dataclass(frozen=True, slots=True)
class Waited:
    """Latency from produce to read, ms."""

    lists: int
    p50: float
    p99: float
    p999: float
    worst: float


class Traffic:
    """A producer and a reader, each in its own thread, during a `with` block."""

    def __init__(self, bootstrap: str, source: str, output: str, *, partitions: int, rate: float) -> None:
        self.sent = 0
        self._source, self._partitions, self._rate = source, partitions, rate
        self._seen: list[Seen] = []
        self._failed: list[BaseException] = []
        self._sending, self._reading = threading.Event(), threading.Event()
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
        self._reader = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"{output}-reader",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 10,
            }
        )
        there = self._reader.list_topics(output, timeout=10).topics[output].partitions
        # From the present end on, to skip lists of earlier runs. The high watermark is the end, as nobody writes yet.
        places = [TopicPartition(output, number) for number in there]
        ends = [self._reader.get_watermark_offsets(place, timeout=10)[1] for place in places]
        self._reader.assign(
            [TopicPartition(output, place.partition, end) for place, end in zip(places, ends, strict=True)]
        )
        self._threads = [
            threading.Thread(target=self._noting_failure, args=(work,)) for work in (self._send, self._read)
        ]

    def __enter__(self) -> "Traffic":
        self._sending.set()
        self._reading.set()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._sending.clear()
        self._reading.clear()
        for thread in self._threads:
            thread.join()
        self._reader.close()

    def seen(self) -> list[Seen]:
        """The lists that arrived so far, in the order of arrival.

        Raises:
            RuntimeError: a thread failed.
        """
        if self._failed:
            raise RuntimeError("the load is broken") from self._failed[0]
        return self._seen.copy()

    def everywhere(self) -> bool:
        """True if every partition had a list."""
        return len({each.partition for each in self.seen()}) == self._partitions

    def stop_sending(self) -> None:
        self._sending.clear()
        self._threads[0].join()

    def complete(self) -> bool:
        """True if there is a list for every interaction that was sent.

        Raises:
            RuntimeError: an interaction has two.
        """
        lists = self.seen()
        places = {(each.partition, each.offset) for each in lists}
        if len(places) < len(lists):
            raise RuntimeError(f"{len(lists) - len(places)} of {len(lists)} lists are there twice")
        return len(places) >= self.sent

    def _noting_failure(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            # `seen` raises it: otherwise the failure of a thread would go unnoticed.
            self._failed.append(error)

    def _send(self) -> None:
        began = time.perf_counter()
        run = b"%d" % time.time_ns()
        while self._sending.is_set():
            while (ahead := began + self.sent / self._rate - time.perf_counter()) > 0:
                self._producer.poll(min(ahead, 0.002))
            value = msgpack.packb({"item": self.sent % 1000, "ts": int(time.time() * 1000)})
            self._producer.produce(self._source, value, b"%b-%d" % (run, self.sent), self.sent % self._partitions)
            self.sent += 1
        self._producer.flush()

    def _read(self) -> None:
        while self._reading.is_set():
            message = self._reader.poll(0.1)
            if message is not None and message.error() is None and message.value() is not None:
                self._seen.append(seen(message, time.time()))


def seen(message: Message, now: float) -> Seen:
    made = msgpack.unpackb(message.value() or b"")
    return Seen(now, made["partition"], made["offset"], made["as_of"] / 1000, message.timestamp()[1] / 1000)


def waited(lists: Iterable[Seen]) -> Waited | None:
    """Latency of lists; None if there are none."""
    each = np.array([one.arrived - one.sent for one in lists]) * 1000
    if not len(each):
        return None
    p50, p99, p999 = np.percentile(each, [50, 99, 99.9]).tolist()
    return Waited(len(each), p50, p99, p999, float(each.max()))


def silences(lists: Sequence[Seen], partitions: int, began: float, ended: float) -> list[float]:
    """The longest time without a list of each partition between two moments, seconds."""
    longest = []
    for number in range(partitions):
        arrivals = [one.arrived for one in lists if one.partition == number and began <= one.arrived <= ended]
        longest.append(
            max(later - earlier for earlier, later in zip([began, *arrivals], [*arrivals, ended], strict=True))
        )
    return longest
