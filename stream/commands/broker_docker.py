"""A Kafka in Docker: a container that runs for a while, or its files, copied out of the image.

Everything that can go wrong here is a reason to look elsewhere, said as text: nobody asked for Docker by name.
"""

import gc
import io
import tarfile
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from stream.commands.broker_process import answers, last_line

_T = TypeVar("_T")

IMAGE: Final = "apache/kafka:4.3.1"
"""The one of deploy/compose.yaml."""
ENGINE_ANSWERS_WITHIN_S: Final = 3
READY_WITHIN_S: Final = 120.0
_PORT: Final = 19092
_DATA: Final = "/var/lib/kafka/data"
_ADVERTISED: Final = "/tmp/advertised"
# The port on this machine is known when the container runs; Kafka starts when it has been told.
_START: Final = f"until [ -s {_ADVERTISED} ]; do sleep 0.1; done; . {_ADVERTISED}; exec /etc/kafka/docker/run"
_PROPERTIES: Final = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.quorum.voters": "1@localhost:9093",
    "listeners": f"INSIDE://:9092,CONTROLLER://:9093,HOST://:{_PORT}",
    "listener.security.protocol.map": "INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT,HOST:PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "INSIDE",
    "log.dirs": _DATA,
    "auto.create.topics.enable": "false",
    # Without these a transaction waits for the three replicas that one node does not have.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # As in stream/commands/kafka_home.py: short sessions, and a cleaner that looks every second.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "log.cleaner.backoff.ms": "1000",
}


class NoDocker(Exception):
    """There is no Kafka from Docker, and why."""


@dataclass(frozen=True, slots=True)
class KafkaContainer:
    """A Kafka that answers.

    Attributes:
        bootstrap: host:port, for `bootstrap.servers`.
        files_with: the files below the broker's data folder, TOPIC-PARTITION/FILE, that hold a text.
    """

    bootstrap: str
    files_with: Callable[[str], list[Path]]


def started(running: ExitStack) -> KafkaContainer:
    """Start a container, and have it removed when `running` is closed.

    Raises:
        NoDocker: there is no client or no engine, or the container does not start or is not ready in time.
    """
    return _obtained(lambda: _started(running), "the container did not start")


def _started(running: ExitStack) -> KafkaContainer:
    from testcontainers.core.container import DockerContainer

    _engine_answers()
    container = DockerContainer(IMAGE).with_exposed_ports(_PORT).with_command(["bash", "-c", _START])
    container.with_kwargs(init=True)
    for name, value in _PROPERTIES.items():
        container.with_env(f"KAFKA_{name.upper().replace('.', '_')}", value)
    with ExitStack() as starting:
        starting.callback(container.stop)
        container.start()
        bootstrap = f"{container.get_container_host_ip()}:{container.get_exposed_port(_PORT)}"
        told = f"export KAFKA_ADVERTISED_LISTENERS=INSIDE://localhost:9092,HOST://{bootstrap}\n"
        container.copy_into_container(told.encode(), _ADVERTISED)
        _wait_until_ready(container, bootstrap)
        running.enter_context(starting.pop_all())
    return KafkaContainer(bootstrap, lambda text: _files_with(container, text))


def _wait_until_ready(container: Any, bootstrap: str) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while not answers(bootstrap):
        container.reload()
        if container.status not in ("created", "running"):
            raise NoDocker(f"Docker: {IMAGE} ended: {_end_of_log(container)}")
        if time.monotonic() > deadline:
            raise NoDocker(f"Docker: {IMAGE} was not ready after {READY_WITHIN_S:.0f} s: {_end_of_log(container)}")
        time.sleep(0.1)


def _end_of_log(container: Any) -> str:
    return last_line("".join(part.decode(errors="replace") for part in container.get_logs()))


def _files_with(container: Any, text: str) -> list[Path]:
    found = container.exec(["grep", "-rlF", "-e", text, _DATA])
    return [Path(line).relative_to(_DATA) for line in found.output.decode().splitlines() if line.startswith(_DATA)]


def unpacked(folder: Path) -> Path:
    """Copy the Kafka of the image into a folder, unless it is there: a download for KAFKA_HOME; returns its path.

    Raises:
        NoDocker: there is no client or no engine, or no such image.
    """
    home = folder / IMAGE.replace("/", "-").replace(":", "-")
    if not (home / "kafka").is_dir():
        _obtained(lambda: _unpack(home), "its files were not copied")
    return home / "kafka"


def _unpack(home: Path) -> None:
    from testcontainers.core.docker_client import DockerClient

    _engine_answers()
    with closing(DockerClient().client) as engine, ExitStack() as made:
        container = engine.containers.create(IMAGE)
        made.callback(container.remove)
        parts, _ = container.get_archive("/opt/kafka")
        with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as archive:
            archive.extractall(home / "copied", filter="data")
    # The other scripts may name each other by their places in the image; `kafka_home.tool` needs none of them.
    for script in (home / "copied" / "kafka" / "bin").glob("*.sh"):
        if script.name != "kafka-run-class.sh":
            script.unlink()
    (home / "copied" / "kafka").rename(home / "kafka")


def _engine_answers() -> None:
    _obtained(_ping, "no engine answers")


def _ping() -> None:
    from testcontainers.core.docker_client import DockerClient

    with closing(DockerClient(timeout=ENGINE_ANSWERS_WITHIN_S).client) as engine:
        engine.ping()


def _obtained(obtain: Callable[[], _T], failure: str) -> _T:
    """What `obtain` returns; every failure of Docker's clients becomes a `NoDocker` that says what did not work."""
    with warnings.catch_warnings():
        # A client that cannot connect leaves its socket to the garbage collector, which warns. It is collected here,
        # where that is expected, once no exception holds it any more.
        warnings.simplefilter("ignore", ResourceWarning)
        found = _attempted(obtain, failure)
        gc.collect()
    if isinstance(found, NoDocker):
        raise found
    return found


def _attempted(obtain: Callable[[], _T], failure: str) -> _T | NoDocker:
    try:
        return obtain()
    except NoDocker as why:
        return NoDocker(str(why))
    except ImportError as error:
        return NoDocker(f"Docker: needs `pip install 'testcontainers>=4.15'` ({error})")
    except Exception as error:
        # DockerException, RuntimeError of testcontainers, OSError of requests, ValueError of a DOCKER_HOST: no list of
        # them is complete, and none may stop the search.
        return NoDocker(f"Docker: {IMAGE}: {failure} ({type(error).__name__}: {last_line(str(error))})")
