"""Processes of a benchmark: each start has its own log; memory, CPU time and readiness can be read."""

import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient

from tests.processes import REC2PM, environ, wait_until


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used up to a moment."""

    at: float
    """Epoch seconds."""
    cpu_s: float
    """CPU seconds, user and system, since its start."""
    peak_rss_mb: float
    """Peak resident memory."""


class Started:
    """A process that is stopped at the end of a `with` block."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str] | None, log: Path, cwd: Path | None = None
    ) -> None:
        self.log = log
        self.began = time.time()
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, env=env, cwd=cwd, stdout=output, stderr=output)

    def __enter__(self) -> "Started":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def usage(self) -> Usage:
        times = psutil.Process(self._process.pid).cpu_times()
        status = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        peak = next((int(line.split()[1]) for line in status if line.startswith("VmHWM:")), 0)
        return Usage(time.time(), times.user + times.system, peak / 1024)

    def watched_until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> list[Usage]:
        """Wait for a condition; returns what the process used meanwhile, one sample per check.

        Raises:
            RuntimeError: the process ended.
            TimeoutError: the condition did not come true in time.
        """
        samples: list[Usage] = []

        def look() -> bool:
            self.must_run()
            samples.append(self.usage())
            return condition()

        wait_until(look, timeout_s, what)
        samples.append(self.usage())
        return samples

    def must_run(self) -> bool:
        """True while the process runs, so that it can be part of a condition that a test waits for.

        Raises:
            RuntimeError: the process ended; the message has the end of its log.
        """
        if self._process.poll() is not None:
            raise RuntimeError(
                f"{self.log.name}: the process ended with {self._process.returncode}:\n{self.log.read_text()[-2000:]}"
            )
        return True

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: the process finishes nothing and logs nothing."""
        self._process.kill()
        self._process.wait()

    def stop(self, patience_s: float = 30.0) -> int:
        """SIGTERM, then SIGKILL after `patience_s`; returns the exit code."""
        if self._process.poll() is None:
            self.terminate()
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.returncode


class StartedWorker(Started):
    """A `rec2pm worker` with its own metrics port. `name` is its REC2PM_WORKER; None: the worker makes a name."""

    def __init__(
        self, env: Mapping[str, str], log: Path, name: str | None = None, command: Sequence[str] = (*REC2PM, "worker")
    ) -> None:
        self.port = free_port()
        named = {} if name is None else {"REC2PM_WORKER": name}
        super().__init__(command, {**env, **named, "REC2PM_METRICS_LISTEN": f"127.0.0.1:{self.port}"}, log)

    def ready(self) -> bool:
        """True if /readyz says so: the worker owns partitions and all of them are running."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def watched_until_ready(self, timeout_s: float = 120) -> list[Usage]:
        """What the worker used until /readyz says that it is ready; the last sample is from that moment."""
        return self.watched_until(self.ready, timeout_s, f"{self.log.name} is ready")


def wait_until_nobody_is_in(bootstrap: str, group: str) -> None:
    """Wait until the group is empty: Kafka removes a named member only when its session ends."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wait_until(
        lambda: admin.describe_consumer_groups([group])[group].result().state == ConsumerGroupState.EMPTY,
        120,
        f"nobody is in group {group}",
    )


def as_shipped(bootstrap: str, app: str, session_ms: int | None = None, **settings: str) -> dict[str, str]:
    """The environment of a worker with the default session time-out, or with `session_ms`; tests use a short one."""
    env = environ(bootstrap, app, **settings)
    env.pop("REC2PM_KAFKA_SESSION_TIMEOUT_MS", None)
    return env if session_ms is None else {**env, "REC2PM_KAFKA_SESSION_TIMEOUT_MS": str(session_ms)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def between(samples: Sequence[Usage], began: float) -> tuple[float, float]:
    """CPU seconds from a moment to the last sample, and the memory at that moment, MB."""
    before = [sample for sample in samples if sample.at <= began] or samples[:1]
    return samples[-1].cpu_s - before[-1].cpu_s, before[-1].peak_rss_mb
