"""A worker as a process beside a broker, for tests: its topics, what goes in, what comes out, and its end."""

import os
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from model.ids import Id
from stream.commands.command_line import REC2PM
from stream.interactions.window import readable
from stream.kafka import topics
from stream.kafka.names import dead_letter_topic, reader_group
from stream.kafka.read_topic import committed_records, partitions
from stream.keys import KeyFormat
from stream.settings import PREFIX, Settings
from stream.testing.driver import Made, Refused
from stream.wire import Recommendation, refusal

TAKES_WITHIN_S: Final = 90.0
ENDS_WITHIN_S: Final = 60.0
_PARTITIONS: Final = 2
_LOG_BYTES: Final = 3000
_LOOK_EVERY_S: Final = 0.1


class WorkerFailed(AssertionError):
    """The worker ended, or did not do its work in time. The message has the end of its log."""


@dataclass(slots=True)
class Worker:
    """A `rec2pm worker`. Several of one application have the same topics."""

    settings: Settings
    env: dict[str, str]
    """The environment of a `rec2pm` command for the same application."""
    log: Path
    process: "subprocess.Popen[bytes]"

    @staticmethod
    def start(bootstrap: str, models: str | os.PathLike[str], folder: Path, settings: Mapping[str, Any]) -> "Worker":
        """Create the topics that are missing, and start a worker.

        Args:
            models: the registry: a folder or a URL.
            folder: for its state and its log.
            settings: of the worker, by their names without `REC2PM_` in lower case; `app` among them.

        Raises:
            SettingsInvalid: a setting does not exist, or its value is wrong.
        """
        app = settings["app"]
        given = {
            "bootstrap_servers": bootstrap,
            "models": os.fspath(models),
            "interactions_topic": f"{app}.interactions",
            "recommendations_topic": f"{app}.recommendations",
            "state_dir": folder / "state",
            "metrics_listen": "",
            # A worker that is killed leaves the group after so long.
            "kafka_session_timeout_ms": 6000,
            **settings,
        }
        ours = {f"{PREFIX}{name.upper()}": str(value) for name, value in given.items()}
        read = Settings.from_environ(ours)
        wanted = topics.plan(app, read.interactions_topic, read.recommendations_topic, _PARTITIONS, 1)
        topics.create(AdminClient({"bootstrap.servers": bootstrap, "log_level": 3}), wanted)
        env = {**{name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}, **ours}
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "worker.log"
        with log.open("wb") as output:
            process = subprocess.Popen([*REC2PM, "worker"], env=env, stdout=output, stderr=output)
        return Worker(read, env, log, process)

    @property
    def kafka(self) -> dict[str, Any]:
        """Options of a client that reads the application's topics."""
        return {"bootstrap.servers": self.settings.bootstrap_servers, "group.id": reader_group(self.settings.app)}

    def send(self, user: str, item: Id, timestamp: int | None = None) -> None:
        """One interaction; `timestamp`: epoch ms, None: now."""
        self.send_all([(user, item, timestamp)])

    def send_all(self, interactions: Iterable[tuple[str, Id, int | None]]) -> None:
        """Interactions, in this order: (user, item, epoch ms or None for now). Returns when Kafka has them."""
        keys = KeyFormat(self.settings.key_format)
        producer = Producer(
            {"bootstrap.servers": self.settings.bootstrap_servers, "partitioner": "murmur2_random", "log_level": 3}
        )
        for user, item, timestamp in interactions:
            value = {"item": item} if timestamp is None else {"item": item, "ts": timestamp}
            producer.produce(self.settings.interactions_topic, msgspec.msgpack.encode(value), keys.key(user))
        if left := producer.flush(30):
            raise WorkerFailed(f"Kafka has not confirmed {left} interactions within 30 s")

    def wait_until_taken(self, within_s: float = TAKES_WITHIN_S) -> None:
        """Wait until workers have taken everything that the interactions topic has at the moment.

        Raises:
            WorkerFailed: they have not in time, or this one has ended.
        """
        ends = {
            number: end
            for number, (begin, end) in readable(self.kafka, self.settings.interactions_topic).items()
            if end > begin
        }
        consumer = Consumer({**self.kafka, "group.id": self.settings.app, "log_level": 3})
        deadline = time.monotonic() + within_s
        try:
            while left := {number: end for number, end in ends.items() if self._committed(consumer, number) < end}:
                if self.process.poll() is not None:
                    raise WorkerFailed(f"the worker ended with {self.process.returncode}:\n{self.told()}")
                if time.monotonic() > deadline:
                    raise WorkerFailed(
                        f"the worker has not come to {left} (partition: offset) within {within_s:.0f} s:\n{self.told()}"
                    )
                time.sleep(_LOOK_EVERY_S)
        finally:
            consumer.close()

    def _committed(self, consumer: Consumer, partition: int) -> int:
        place = TopicPartition(self.settings.interactions_topic, partition)
        try:
            return int(consumer.committed([place], timeout=10)[0].offset)
        except KafkaException:  # the group has no coordinator yet
            return -1

    def lists(self) -> list[Made]:
        """Every record of the recommendations topic, those of each partition in their order."""
        return [
            Made((message.key() or b"").decode(), None if value is None else _decoded(value))
            for message, value in self._records(self.settings.recommendations_topic)
        ]

    def newest_list(self, user: str) -> Recommendation | None:
        """The list that a reader of the compacted topic has for a user; None if there is none."""
        return next((each.list for each in reversed(self.lists()) if each.user == user), None)

    def dead_letters(self) -> list[Refused]:
        """Every record of the dead letter topic."""
        found = []
        for message, value in self._records(dead_letter_topic(self.settings.app)):
            if (why := refusal(message.headers() or [])) is not None:
                found.append(Refused(message.key(), value, why.exception, why.message, why.partition, why.offset))
        return found

    def _records(self, topic: str) -> Iterable[tuple[Any, bytes | None]]:
        for number in partitions(self.kafka, topic):
            for message in committed_records(self.kafka, topic, number):
                yield message, message.value()

    def told(self) -> str:
        """The end of its log."""
        return self.log.read_bytes()[-_LOG_BYTES:].decode(errors="replace")

    def stop(self, within_s: float = ENDS_WITHIN_S) -> None:
        """SIGTERM: the worker finishes its step and leaves. A worker that was killed is passed over.

        Raises:
            WorkerFailed: its exit code is not 0, or it has not ended in time.
        """
        if self.process.poll() is None:
            self.process.terminate()
        try:
            code = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise WorkerFailed(f"the worker has not ended within {within_s:.0f} s of SIGTERM:\n{self.told()}") from None
        if code not in (0, _KILLED):
            raise WorkerFailed(f"the worker ended with {code}, expected 0:\n{self.told()}")

    def kill(self) -> None:
        """SIGKILL: nothing is finished."""
        self.process.kill()
        self.process.wait()


_KILLED: Final = -9


def _decoded(value: bytes) -> Recommendation:
    """A list, as MessagePack or JSON (`REC2PM_OUTPUT_FORMAT`)."""
    if value[:1] == b"{":
        return msgspec.json.decode(value, type=Recommendation)
    return msgspec.msgpack.decode(value, type=Recommendation)
