"""The broker the integration tests talk to: found or started once per session (see stream/commands/broker.py for where
it comes from).
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from uuid import uuid4

import pytest

from stream.commands.broker import Broker, found_broker
from tests.secured import kafka as secured_kafka
from tests.secured.kafka import SecuredKafka

SHOWS_ABORTED = (
    "embedded broker shows aborted records to read_committed readers: set KAFKA_HOME or REC2PM_TEST_BOOTSTRAP"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-isolation", action="store_true", help="a skipped test with the marker `isolation` is a failure (CI)"
    )


def pytest_report_header() -> str:
    for name in ("REC2PM_TEST_BOOTSTRAP", "KAFKA_HOME"):
        if os.environ.get(name):
            return f"broker: {name}={os.environ[name]}"
    return "broker: Docker if it answers, else the embedded one (REC2PM_TEST_BOOTSTRAP and KAFKA_HOME are not set)"


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with found_broker(os.environ, tmp_path_factory.mktemp("broker")) as found:
        yield found


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
