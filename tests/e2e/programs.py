"""`rec2pm` as it is handed over: from the wheel in environments of their own, or as containers of the image.

Both stand beside one Kafka and begin in an empty folder. A program gets the settings of its application, and for the
rest has the defaults.
"""

import http.client
import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import uuid4

from tests.e2e.environment import Environment
from tests.processes import wait_until

COMMAND_S: Final = 120.0
STOPS_WITHIN_S: Final = 20.0


@dataclass
class Program:
    """A program that runs until it is stopped."""

    process: subprocess.Popen[bytes]
    log: Path
    container: str | None = None

    def stop(self) -> int:
        """SIGTERM, as a supervisor sends it; the exit code."""
        if self.container is None:
            self.process.send_signal(signal.SIGTERM)
        else:
            _docker("kill", "--signal", "TERM", self.container)
        return self.process.wait(STOPS_WITHIN_S)

    def end(self) -> None:
        """Whatever it takes."""
        if self.process.poll() is None and self.container is not None:
            subprocess.run(["docker", "rm", "--force", self.container], capture_output=True, check=False)
        self.process.kill()
        self.process.wait()

    def said(self) -> str:
        return self.log.read_text(errors="replace")


class Programs(Protocol):
    """What a test does with either."""

    def run(self, *arguments: str) -> str:
        """Run a command to its end, which must be a good one; what it wrote to stdout."""

    def start(self, name: str, *arguments: str, **settings: str) -> Program:
        """Start a program, with settings of its own."""

    def put(self, name: str, content: bytes) -> None:
        """Write a file into the folder that the programs start in."""

    def get(self, name: str) -> bytes:
        """Read a file of that folder."""

    def close(self) -> None:
        """End what still runs."""


@dataclass
class FromWheel:
    """Each command in an environment that has the extra its page names, and nothing else.

    Attributes:
        folder: empty, and the current folder of every program.
        settings: of the application, without `REC2PM_`.
        extras: the environment with an extra, by the command that needs it; "" is the one without extras.
    """

    folder: Path
    settings: Mapping[str, str]
    extras: Mapping[str, Environment]
    started: list[Program] = field(default_factory=list)

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            self._command(*arguments),
            cwd=self.folder,
            env=self._environ(arguments[0]),
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        return _good(done)

    def start(self, name: str, *arguments: str, **settings: str) -> Program:
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self._command(*arguments),
                cwd=self.folder,
                env=self._environ(arguments[0], **settings),
                stdout=output,
                stderr=output,
            )
        self.started.append(Program(process, log))
        return self.started[-1]

    def put(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)

    def get(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def close(self) -> None:
        for each in self.started:
            each.end()

    def _environment(self, command: str) -> Environment:
        return self.extras[command if command in self.extras else ""]

    def _command(self, *arguments: str) -> list[str]:
        return [str(self._environment(arguments[0]).folder / "bin" / "rec2pm"), *arguments]

    def _environ(self, command: str, **settings: str) -> dict[str, str]:
        ours = {f"REC2PM_{name}": value for name, value in {**self.settings, **settings}.items()}
        return {**self._environment(command).environ(), **ours}


@dataclass
class FromImage:
    """Each command in a container of its own, as the image's own user; they share the image's home, a volume."""

    image: str
    folder: Path
    settings: Mapping[str, str]
    volume: str = field(default_factory=lambda: f"rec2pm-test-{uuid4().hex[:12]}")
    started: list[Program] = field(default_factory=list)

    def run(self, *arguments: str) -> str:
        return _good(_finished([*self._docker_run(self.settings), self.image, *arguments]))

    def start(self, name: str, *arguments: str, **settings: str) -> Program:
        log, container = self.folder / f"{name}.log", f"{self.volume}-{name}"
        options = self._docker_run({**self.settings, **settings}, "--name", container)
        with log.open("wb") as output:
            process = subprocess.Popen([*options, self.image, *arguments], stdout=output, stderr=output)
        self.started.append(Program(process, log, container))
        return self.started[-1]

    def put(self, name: str, content: bytes) -> None:
        options = self._docker_run({}, "--interactive", "--entrypoint", "sh")
        written = [*options, self.image, "-c", 'cat >"$1"', "sh", name]
        subprocess.run(written, input=content, capture_output=True, timeout=COMMAND_S, check=True)

    def get(self, name: str) -> bytes:
        options = self._docker_run({}, "--entrypoint", "cat")
        return subprocess.run([*options, self.image, name], capture_output=True, timeout=COMMAND_S, check=True).stdout

    def close(self) -> None:
        for each in self.started:
            each.end()
        subprocess.run(["docker", "volume", "rm", "--force", self.volume], capture_output=True, check=False)

    def _docker_run(self, settings: Mapping[str, str], *options: str) -> list[str]:
        # On the machine's own network: Kafka is where it is for the tests, and the ports are.
        command = ["docker", "run", "--rm", "--network", "host", "--volume", f"{self.volume}:/var/lib/rec2pm", *options]
        for name, value in settings.items():
            command += ["--env", f"REC2PM_{name}={value}"]
        return command


def _finished(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)


def _docker(*arguments: str) -> str:
    return _good(_finished(["docker", *arguments]))


def _good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.args}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


@contextmanager
def from_image(image: str, settings: Mapping[str, str]) -> Iterator[FromImage]:
    with tempfile.TemporaryDirectory() as folder:
        programs = FromImage(image, Path(folder), settings)
        try:
            yield programs
        finally:
            programs.close()


# --- what they answer over HTTP ---


def get(port: int, path: str) -> tuple[int, Any]:
    """Status and body; status 0 while nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, json.loads(body) if "json" in (answer.headers["Content-Type"] or "") else body.decode()
    except (ConnectionError, http.client.RemoteDisconnected):
        return 0, None
    finally:
        connection.close()


def wait_for(program: Program, port: int, path: str, timeout_s: float = 60.0) -> None:
    """Wait until a path is answered with 200; what the program said is in the error when it is not."""

    def answers() -> bool:
        assert program.process.poll() is None, program.said()
        return get(port, path)[0] == 200

    try:
        wait_until(answers, timeout_s, path)
    except TimeoutError as error:
        raise AssertionError(f"{error}; {program.log.name}:\n{program.said()}") from None


@contextmanager
def events(port: int, path: str) -> Iterator[Iterator[Any]]:
    """The data of server-sent events, as they come."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        yield (json.loads(line[len(b"data: ") :]) for line in iter(answer.readline, b"") if line.startswith(b"data: "))
    finally:
        connection.close()


def until(condition: Any, what: str, timeout_s: float = 60.0) -> None:
    """Wait until `condition()` is true, and say the last value that was not."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s, {found!r}"
        time.sleep(0.1)
