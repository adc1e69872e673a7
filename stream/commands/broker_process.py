"""A broker as a child process: started, waited for until it answers, and stopped, whatever happens to this process.

Should this process end without stopping it (SIGTERM, SIGKILL, os._exit), a guard, a shell that waits for the end of a
pipe from this process, kills the broker's process group.
"""

import logging
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from os import killpg
from pathlib import Path
from signal import SIGKILL, SIGTERM

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

logger = logging.getLogger(__name__)

READY_WITHIN_S = 60.0  # 3 s are usual; a JVM on a busy machine with two cores needs many times that
STOPS_WITHIN_S = 15.0
STARTS = 3  # a free port can be taken by someone else between its choice and its use


class BrokerNotFound(Exception):
    """No broker, and the message says what was tried and what to install or correct."""


@dataclass(frozen=True, slots=True)
class BrokerProcess:
    broker: subprocess.Popen[bytes]
    log: Path


def bootstrap_when_ready(start: Callable[[int], BrokerProcess]) -> str:
    for attempt in range(1, STARTS + 1):
        port = free_port()
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


def started(
    command: Sequence[str], log: Path, environ: Mapping[str, str], folder: Path, running: ExitStack
) -> BrokerProcess:
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
    return BrokerProcess(broker, log)


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


def _wait_until_ready(process: BrokerProcess, port: int) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while not (accepts(port) and answers(f"127.0.0.1:{port}")):
        status = process.broker.poll()
        if status is not None:
            raise BrokerNotFound(
                f"the broker ended with exit code {status} before it was ready; the end of {process.log}:\n{tail(process.log)}"
            )
        if time.monotonic() > deadline:
            raise BrokerNotFound(
                f"the broker was not ready after {READY_WITHIN_S:.0f} s; the end of {process.log}:\n{tail(process.log)}"
            )
        time.sleep(0.05)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(bootstrap: str) -> bool:
    """Whether a broker says at this address who is there."""
    try:
        return bool(AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


def last_line(text: str) -> str:
    """The last line of what a program said: at most 300 characters."""
    return (text.strip().splitlines() or ["no message"])[-1][:300]
