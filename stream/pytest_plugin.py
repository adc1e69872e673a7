"""Fixtures of pytest for those who test what they build around a worker. An installed rec2pm brings them.

`rec2pm_driver` is a worker without a broker. `rec2pm_broker` is a Kafka for the session, and `rec2pm_worker` starts
workers on it as processes.

Every session of pytest imports this file, whatever it tests. So what is large is imported in the fixtures.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from stream.commands.broker import Broker
    from stream.testing import Driver
    from stream.testing.process import Worker


def pytest_configure(config: pytest.Config) -> None:
    """Versions are TorchScript, and torch says at each use that it is deprecated. No test of yours can mend that."""
    for category in ("DeprecationWarning", "FutureWarning"):
        config.addinivalue_line("filterwarnings", rf"ignore:`torch\.jit\.:{category}")


@pytest.fixture
def rec2pm_driver() -> "Iterator[Callable[..., Driver]]":
    """Makes drivers (`stream.testing.Driver`), and closes them after the test."""
    from stream.testing import Driver

    with ExitStack() as closing:

        def made(models: str | os.PathLike[str], model: str | None = None, **options: Any) -> Driver:
            return closing.enter_context(Driver(models, model, **options))

        yield made


@pytest.fixture(scope="session")
def rec2pm_broker(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Broker]":
    """A Kafka: REC2PM_TEST_BOOTSTRAP, else one that is started from KAFKA_HOME, in Docker, or the embedded one of the
    extra `demo`. `bootstrap` is its address, `description` says what it is.

    The embedded one shows the records of aborted transactions to readers of committed ones (`hides_aborted` is False).
    """
    from stream.commands.broker import found_broker

    with found_broker(os.environ, tmp_path_factory.mktemp("rec2pm-broker")) as found:
        yield found


@pytest.fixture
def rec2pm_worker(rec2pm_broker: "Broker", tmp_path: Path) -> "Iterator[Callable[..., Worker]]":
    """Starts workers as processes (`stream.testing.process.Worker`), and stops them after the test with SIGTERM.

    The test fails if a worker does not end with exit code 0.
    """
    from stream.testing.process import Worker

    started: list[Worker] = []
    app = f"test-{uuid4().hex[:12]}"

    def start(models: str | os.PathLike[str], **settings: Any) -> Worker:
        folder = tmp_path / f"worker-{len(started)}"
        worker = Worker.start(rec2pm_broker.bootstrap, models, folder, {"app": app, **settings})
        started.append(worker)
        return worker

    try:
        yield start
        for worker in started:
            worker.stop()
    finally:
        for worker in started:
            worker.kill()
