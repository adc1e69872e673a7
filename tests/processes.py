"""Workers as real processes, and what is committed: for tests, `tests.verify` and the benchmarks."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from stream.commands.command_line import REC2PM

ROOT = Path(__file__).parent.parent


def session_ms(wanted: int) -> int:
    """For how long a group waits for a member that was killed: as short as wanted, where the broker allows it. A given
    broker has Kafka's own lower limit, those of the tests a lower one.
    """
    return max(wanted, 6000 if os.environ.get("REC2PM_TEST_BOOTSTRAP") else 1000)


SESSION_MS = session_ms(3000)


def environ(bootstrap: str, app: str, **settings: str) -> dict[str, str]:
    """The environment of a `rec2pm` process: no setting of this process's own leaks into it."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("REC2PM_")}
    ours = {
        "BOOTSTRAP_SERVERS": bootstrap,
        "APP": app,
        "INTERACTIONS_TOPIC": f"{app}.in",
        "RECOMMENDATIONS_TOPIC": f"{app}.out",
        # The embedded broker lets a named worker, whose session is long, wait for a good part of it before it joins.
        "KAFKA_SESSION_TIMEOUT_MS": str(SESSION_MS),
        "KAFKA_HEARTBEAT_INTERVAL_MS": "500",
        **settings,
    }
    return own | {f"REC2PM_{name}": value for name, value in ours.items()} | {"PYTHONPATH": str(ROOT)}


def rec2pm(*arguments: str, env: Mapping[str, str], timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run([*REC2PM, *arguments], env=env, capture_output=True, text=True, timeout=timeout, check=False)


@contextmanager
def workers(count: int, env: Mapping[str, str], folder: Path) -> Iterator[list["WorkerProcess"]]:
    """So many workers, each with a name and a log file of its own; stopped by SIGTERM at the end."""
    started = [WorkerProcess(f"w{number}", env, folder) for number in range(count)]
    try:
        yield started
    finally:
        for worker in started:
            worker.terminate()
        for worker in started:
            worker.ended(30)


class WorkerProcess:
    """A `rec2pm worker` that can be killed and started again under the same name."""

    def __init__(self, name: str, env: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._env = {**env, "REC2PM_WORKER": name}
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*REC2PM, "worker"], env=self._env, stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL: nothing is finished, nothing is said."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        self.process.terminate()

    def ended(self, timeout_s: float) -> int:
        """The exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def running(self) -> bool:
        return self.process.poll() is None


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Poll a condition until it holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(0.05)


class Committed:
    """How far a group has come in a topic."""

    def __init__(self, bootstrap: str, group: str, topic: str) -> None:
        # A consumer that never joins. AdminClient.list_consumer_group_offsets ends the process with a segmentation
        # fault (librdkafka 2.16.0) when the group's coordinator is not there yet.
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": group, "isolation.level": "read_uncommitted", "log_level": 3}
        )
        self._places = [
            TopicPartition(topic, number)
            for number in self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ]

    def offsets(self) -> dict[int, int]:
        """Committed offsets, 0 where there are none yet."""
        try:
            return {
                place.partition: max(place.offset, 0) for place in self._consumer.committed(self._places, timeout=10)
            }
        except KafkaException:
            return {}

    def total(self) -> int:
        return sum(self.offsets().values())


def read_committed(bootstrap: str, topic: str) -> list[Message]:
    """Every record of a topic up to its present end, as a read_committed reader sees it."""
    return list(each_committed(bootstrap, topic))


def each_committed(bootstrap: str, topic: str) -> Iterator[Message]:
    """The same one by one, for a topic that should not be in memory; the order is that of offsets in each partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "rec2pm-test-reader",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,  # the end is told when a fetch comes back empty
            "auto.offset.reset": "earliest",
        }
    )
    try:
        partitions = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        ended: set[int | None] = set()
        while len(ended) < len(partitions):
            for message in consumer.consume(5000, 0.05):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()


def recommendation(message: Message) -> dict[str, Any]:
    decoded: dict[str, Any] = msgpack.unpackb(message.value() or b"")
    return decoded
