"""The broker the integration tests talk to: found or started once per process of the session (see
stream/commands/broker.py for where it comes from).

`make test` runs two processes (pytest-xdist). Each has a broker of its own: a second one costs some seconds, and what a
test does to its broker troubles no other test.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import hypothesis
import pytest

from stream.commands import broker_docker
from stream.commands.broker import Broker, found_broker
from stream.commands.broker_process import BrokerNotFound
from tests.quick_java import quick_java
from tests.secured import kafka as secured_kafka
from tests.secured.kafka import SecuredKafka

# How long one example takes says something about the machine.
hypothesis.settings.register_profile("rec2pm", deadline=None)
hypothesis.settings.load_profile("rec2pm")

SHOWS_ABORTED = (
    "embedded broker shows aborted records to read_committed readers: set KAFKA_HOME or REC2PM_TEST_BOOTSTRAP"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-isolation", action="store_true", help="a skipped test with the marker `isolation` is a failure (CI)"
    )
    parser.addoption("--image", help="a Docker image of this checkout, for the test that needs one")


class SessionBroker:
    """Found when first asked for, and stopped with the session."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = ExitStack()
        self._found: Broker | BrokerNotFound | None = None

    def get(self) -> Broker:
        """Raises BrokerNotFound, each time."""
        if self._found is None:
            try:
                self._found = self._running.enter_context(found_broker(quick_java(os.environ), self._folder))
            except BrokerNotFound as error:
                self._found = error
        if isinstance(self._found, BrokerNotFound):
            raise self._found
        return self._found

    def described(self) -> list[str]:
        """Which broker it is, and why none of those before it; empty if nobody asked for one."""
        match self._found:
            case None:
                return []
            case BrokerNotFound() as error:
                return [f"broker: {error}"]
            case found:
                return [f"broker: {found.description}", *(f"  not: {why}" for why in found.passed_over)]

    def close(self) -> None:
        self._running.close()


_BROKER = pytest.StashKey[SessionBroker]()
_BROKERS_OF_PROCESSES = pytest.StashKey[list[str]]()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    config.stash[_BROKER] = SessionBroker(config._tmp_path_factory.mktemp("broker"))
    if config.getoption("--require-isolation") and not os.environ.get("KAFKA_HOME"):
        # Some of these tests start a Kafka with properties of their own. A container is not enough for them; a Kafka
        # download is, and the image holds one.
        try:
            os.environ["KAFKA_HOME"] = str(broker_docker.unpacked(config.cache.mkdir("kafka")))
        except broker_docker.NoDocker as why:
            if not os.environ.get("REC2PM_TEST_BOOTSTRAP"):
                raise pytest.UsageError(f"--require-isolation needs a Kafka: KAFKA_HOME is not set. {why}") from None


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop the broker while the process that waits for this one is patient: pytest-xdist kills one that ends slowly."""
    broker = session.config.stash[_BROKER]
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["broker"] = broker.described()
    broker.close()


def pytest_report_collectionfinish(config: pytest.Config, items: Sequence[pytest.Item]) -> list[str]:
    """Which broker the tests use; it is started here when a test needs it. With several processes, the end says it."""
    if config.option.collectonly or not any("broker" in getattr(item, "fixturenames", ()) for item in items):
        return []
    broker = config.stash[_BROKER]
    with suppress(BrokerNotFound):
        broker.get()
    return broker.described()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A process has ended, with an output unless it crashed."""
    lines = getattr(node, "workeroutput", {}).get("broker", [])
    node.config.stash.setdefault(_BROKERS_OF_PROCESSES, []).extend(f"{node.gateway.id}: {line}" for line in lines)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in terminalreporter.config.stash.get(_BROKERS_OF_PROCESSES, []):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Broker:
    return request.config.stash[_BROKER].get()


@pytest.fixture
def bootstrap(broker: Broker) -> str:
    return broker.bootstrap


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """A Kafka with TLS, SASL and an authorizer. Tests have it in common: each grants rights to its own application."""
    if not os.environ.get("KAFKA_HOME"):
        pytest.skip("KAFKA_HOME is not set: TLS, SASL and rights need a Kafka that is started with them")
    with secured_kafka.running(tmp_path_factory.mktemp("secured"), os.environ) as running:
        yield running


@pytest.fixture
def app() -> str:
    """A name nobody has used on this broker: for `REC2PM_APP`, and for topics and groups."""
    return f"test-{uuid4().hex[:12]}"


@pytest.fixture(autouse=True)
def _skip_without_isolation(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("isolation") and not request.getfixturevalue("broker").hides_aborted:
        pytest.skip(SHOWS_ABORTED)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and item.get_closest_marker("isolation") and item.config.getoption("--require-isolation"):
        report.outcome = "failed"
        report.longrepr = f"skipped in spite of --require-isolation: {report.longrepr}"
    return report
