"""The broker of the tests itself: without these, a failure elsewhere could be its fault."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from docker.errors import DockerException
from testcontainers.core.container import DockerContainer
from testcontainers.core.exceptions import ContainerStartException

from stream.commands import broker_docker
from stream.commands.broker import found_broker
from stream.commands.broker_process import BrokerNotFound


def make_topic(bootstrap: str, name: str, partitions: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(name, partitions, 1)]).values():
        future.result()


def read_committed(bootstrap: str, topic: str) -> list[bytes | None]:
    """The values of partition 0, as a read_committed reader sees them up to the end."""
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"{topic}-reader",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,  # the end is told when a fetch comes back empty
            "enable.auto.commit": False,
        }
    )
    reader.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    values: list[bytes | None] = []
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            for message in reader.consume(100, 0.1):
                error = message.error()
                if error is None:
                    values.append(message.value())
                elif error.code() == KafkaError._PARTITION_EOF:
                    return values
        raise AssertionError(f"no end of {topic} within 30 s")
    finally:
        reader.close()


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def test_a_produced_record_is_read_back_with_key_headers_and_timestamp(bootstrap: str, app: str) -> None:
    make_topic(bootstrap, app)
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(app, b"value", b"key", headers=[("a", b"1"), ("a", b"2")], timestamp=1_700_000_000_123)
    assert producer.flush(30) == 0
    assert read_committed(bootstrap, app) == [b"value"]


def test_a_committed_transaction_carries_its_records_and_the_offsets_together(bootstrap: str, app: str) -> None:
    make_topic(bootstrap, app)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": app,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
        }
    )
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": app})
    try:
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(app, b"kept", b"key")
        producer.send_offsets_to_transaction([TopicPartition(app, 0, 7)], consumer.consumer_group_metadata(), 30)
        producer.commit_transaction(30)
        assert read_committed(bootstrap, app) == [b"kept"]
        assert [each.offset for each in consumer.committed([TopicPartition(app, 0)], timeout=30)] == [7]
    finally:
        consumer.close()


@pytest.mark.isolation
def test_an_aborted_record_is_hidden_from_a_read_committed_reader(bootstrap: str, app: str) -> None:
    make_topic(bootstrap, app)
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": app})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(app, b"aborted", b"key")
    producer.flush(30)
    producer.abort_transaction(30)
    producer.begin_transaction()
    producer.produce(app, b"kept", b"key")
    producer.commit_transaction(30)
    assert read_committed(bootstrap, app) == [b"kept"]


def test_a_given_broker_that_does_not_answer_is_an_error_that_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.commands.broker.GIVEN_ANSWERS_WITHIN_S", 0.5)
    with (
        pytest.raises(BrokerNotFound, match="REC2PM_TEST_BOOTSTRAP=127"),
        found_broker({"REC2PM_TEST_BOOTSTRAP": "127.0.0.1:1"}, tmp_path),
    ):
        pass


def test_a_broker_starts_in_a_folder_that_is_named_relatively(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {name: value for name, value in os.environ.items() if name != "REC2PM_TEST_BOOTSTRAP"}
    with found_broker(environ, Path("here"), docker=False) as started:
        assert AdminClient({"bootstrap.servers": started.bootstrap}).list_topics(timeout=10).brokers
    assert (tmp_path / "here").is_dir()


def test_a_kafka_home_that_is_not_there_is_an_error_and_not_a_reason_to_take_another_broker(tmp_path: Path) -> None:
    with (
        pytest.raises(BrokerNotFound, match=r"KAFKA_HOME=.*nowhere"),
        found_broker({"KAFKA_HOME": str(tmp_path / "nowhere")}, tmp_path),
    ):
        pass


def test_a_kafka_home_without_java_is_an_error_that_says_which_java(tmp_path: Path) -> None:
    script = tmp_path / "bin" / "kafka-run-class.sh"
    script.parent.mkdir()
    script.touch()
    with (
        pytest.raises(BrokerNotFound, match="install Java 17"),
        found_broker({"KAFKA_HOME": str(tmp_path), "PATH": ""}, tmp_path),
    ):
        pass


class _Fails:
    """A container that does not start."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def start(self, *_: object) -> None:
        raise self._error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Container exited before emitting logs satisfying predicate"),
        ContainerStartException("Container is not started"),
        DockerException("Error while fetching server API version"),
        TimeoutError("timed out"),
        ConnectionError("refused"),
        ValueError("invalid DOCKER_HOST"),
        KeyError("ApiVersion"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_fails_in_docker_is_said_and_the_next_broker_is_taken(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_docker, "_engine_answers", lambda: None)
    monkeypatch.setattr(DockerContainer, "__init__", _Fails(error).start)
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    with found_broker(environ, tmp_path) as broker:
        assert broker.kind == "embedded"
        docker = broker.passed_over[-1]
        assert docker.startswith(f"Docker: {broker_docker.IMAGE}: the container did not start (")
        assert str(error) in docker
        assert broker.passed_over[:-1] == ("REC2PM_TEST_BOOTSTRAP is not set", "KAFKA_HOME is not set")


@pytest.mark.parametrize("host", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1", "nonsense", "ssh://"])
def test_a_docker_that_does_not_answer_is_no_error_and_says_why(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    with ExitStack() as running, pytest.raises(broker_docker.NoDocker, match=r"no engine answers \(.+\)"):
        broker_docker.started(running)


HOLDS_A_BROKER = """
import os, sys, time
from pathlib import Path
from stream.commands.broker import found_broker
with found_broker({"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}, Path(sys.argv[1]), docker=False) as broker:
    print(broker.bootstrap, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_broker_outlives_the_process_that_started_it(tmp_path: Path, number: signal.Signals) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS_A_BROKER, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().startswith(b"127.0.0.1:")
        started = psutil.Process(holder.pid).children()
        assert len(started) == 2, "the broker and its guard"
        os.kill(holder.pid, number)
        holder.wait(90)
        until(lambda: not any(_runs(process) for process in started), 30, f"{started} gone")
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
