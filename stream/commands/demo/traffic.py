"""Interactions sent to the workers, and the lists that come back."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from stream.commands.broker import Broker
from stream.commands.demo.settings import APP, PARTITIONS
from stream.commands.send_log import PRODUCER
from stream.errors import KafkaUnusable
from stream.wire import Recommendation


@dataclass(slots=True)
class Served:
    """By user, the interactions that were sent and the lists that came back."""

    items: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    """Items sent so far, in order."""
    offsets: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Where each of them is in the interactions topic."""
    lists: dict[str, list[Recommendation]] = field(default_factory=lambda: defaultdict(list))
    received: int = 0
    """Lists, of all users."""
    folds: dict[str, int] = field(default_factory=dict)
    models: Counter[str] = field(default_factory=Counter)
    """NAME@VERSION → lists of the traffic, without those of the past."""
    in_traffic: bool = False


class Traffic:
    """Sends interactions, and reads the lists that come back."""

    def __init__(self, broker: Broker, served: Served) -> None:
        self._served = served
        self._producer = Producer({**PRODUCER, "linger.ms": 5, "bootstrap.servers": broker.bootstrap})
        self._reader = Consumer(
            {
                "bootstrap.servers": broker.bootstrap,
                "group.id": f"{APP}-reader",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
            }
        )
        self._reader.assign([TopicPartition(f"{APP}.recommendations", number, 0) for number in range(PARTITIONS)])
        # Never joins. AdminClient.list_consumer_group_offsets ends the process when the group's coordinator is not
        # there yet (librdkafka 2.16.0).
        self._group = Consumer(
            {
                "bootstrap.servers": broker.bootstrap,
                "group.id": APP,
                "isolation.level": "read_uncommitted",
                "log_level": 3,
            }
        )
        self._partitions = [TopicPartition(f"{APP}.interactions", number) for number in range(PARTITIONS)]
        self._failed: list[str] = []

    def send(self, user: str, item: Any, time_ms: int) -> None:
        offsets = self._served.offsets[user]

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._failed.append(str(error))
            else:
                offsets.append(message.offset() or 0)

        self._served.items[user].append(item)
        while True:
            try:
                self._producer.produce(
                    f"{APP}.interactions",
                    msgspec.msgpack.encode({"item": item, "ts": time_ms}),
                    user.encode(),
                    on_delivery=delivered,
                )
                break
            except BufferError:
                self._producer.poll(0.1)

    def flush(self) -> None:
        self._producer.flush(30)
        if self._failed:
            raise KafkaUnusable(f"the broker did not accept {len(self._failed)} interactions: {self._failed[0]}")

    def read(self, wait_s: float) -> None:
        self._producer.poll(0)
        for message in self._reader.consume(5000, wait_s):
            value = message.value()
            if message.error() is None and value is not None:
                made = msgspec.msgpack.decode(value, type=Recommendation)
                user = (message.key() or b"").decode()
                self._served.lists[user].append(made)
                self._served.folds[user] = made.folds
                self._served.received += 1
                if self._served.in_traffic:
                    self._served.models[made.model] += 1

    def committed(self) -> int:
        """How many interactions the workers have committed."""
        try:
            return sum(max(each.offset, 0) for each in self._group.committed(self._partitions, timeout=5))
        except KafkaException:
            return 0

    def close(self) -> None:
        self._reader.close()
        self._group.close()
