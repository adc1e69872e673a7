"""What a worker process says about its health, and how it ends, on a Kafka that goes away and comes back."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench import null_model
from model.version.registry import Registry
from stream.commands.command_line import REC2PM
from tests.crash import kafka
from tests.crash.kafka import Kafka
from tests.crash.ports import free_ports
from tests.integration.test_worker import ROOT, Application, Running, create_topics
from tests.processes import wait_until

NOTICED_S = 40.0
STOPS_WITHIN_S = 5.0
IMPATIENT = """
import stream.prometheus as prometheus
import stream.kafka.statistics as statistics
import stream.commands.view.outage as outage
prometheus.WAITING_WITHIN_S /= 5
statistics.EVERY_MS //= 5
statistics._SILENT_AFTER_US = 2_000_000
(outage.LOOKS_EVERY_S,) = outage.watch.__defaults__ = (outage.LOOKS_EVERY_S / 5,)
outage._ANSWERS_WITHIN_S /= 4
from stream.__main__ import main
main()
"""
"""A worker or a view that looks, and looks again, after about a second and not after five."""
WAITS_S = 3.0
"""How long such a worker says that it waits after Kafka was last missed."""

pytestmark = pytest.mark.isolation


@pytest.fixture(scope="module")
def broker_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    if not os.environ.get("KAFKA_HOME"):
        pytest.skip("KAFKA_HOME is not set: a broker that is killed must be one of our own")
    folder = tmp_path_factory.mktemp("killed")
    with kafka.running(folder, kafka.Ports(*free_ports(4, random.Random())), os.environ) as running:
        yield running


@pytest.fixture
def application(broker_of_our_own: Kafka, tmp_path: Path) -> Iterator[Application]:
    made = Application(broker_of_our_own.direct, tmp_path, partitions=1)
    create_topics(made)
    null_model.write(Registry(made.models), segment_length=10)
    yield made
    made.close()


def started(application: Application, name: str, command: Sequence[str] = (*REC2PM, "worker")) -> tuple[Running, int]:
    """A worker, and the port of its probes."""
    (port,) = free_ports(1, random.Random())
    return application.start_worker(command, WORKER=name, METRICS_LISTEN=f"127.0.0.1:{port}"), port


def asked(port: int, path: str) -> tuple[int, str]:
    """Status and text; status 0 while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except (urllib.error.URLError, ConnectionError):
        return 0, ""


def wait_until_ready(worker: Running, port: int) -> str:
    def ready() -> bool:
        assert worker.process.poll() is None, worker.told()
        return asked(port, "/readyz")[0] == 200

    wait_until(ready, 60, "the worker is ready")
    return asked(port, "/readyz")[1]


def test_a_worker_too_many_is_ready_and_says_that_it_stands_by(application: Application) -> None:
    ports = []
    workers = [started(application, f"w{number}") for number in range(application.partitions + 1)]
    for number, (worker, port) in enumerate(workers):
        said = wait_until_ready(worker, port)
        assert f"(application {application.name}, worker w{number})" in said
        ports.append(port)

    def settled() -> bool:
        said = [asked(port, "/readyz") for port in ports]
        return {code for code, _ in said} == {200} and sum(text.startswith("standby") for _, text in said) == 1

    wait_until(settled, 60, "one worker stands by")


def test_a_worker_with_nothing_to_do_notices_that_kafka_is_away_each_time(
    application: Application, broker_of_our_own: Kafka
) -> None:
    worker, port = started(application, "w0", [sys.executable, "-c", IMPATIENT, "worker"])
    wait_until_ready(worker, port)

    def waits() -> bool:
        status, text = asked(port, "/metrics")
        assert status == 200, worker.told()
        return "rec2pm_waiting_for_kafka 1.0" in text

    assert not waits()
    for goes, comes_back in (
        (broker_of_our_own.pause, broker_of_our_own.resume),
        (broker_of_our_own.kill, broker_of_our_own.start),
    ):
        goes()
        wait_until(waits, NOTICED_S, "it is noticed")
        time.sleep(WAITS_S + 1)
        assert waits(), "for as long as Kafka is away"
        assert asked(port, "/livez")[0] == 200
        comes_back()
        wait_until(lambda: not waits(), NOTICED_S, "it is noticed that Kafka is back")
    assert worker.stop()[0] == 0


def test_a_view_says_once_that_kafka_is_away_and_once_that_it_is_back(
    application: Application, broker_of_our_own: Kafka
) -> None:
    pytest.importorskip("faust", reason="the extra `view` is not installed")
    (port,) = free_ports(1, random.Random())
    log = application.folder / "view.log"
    with log.open("wb") as output:
        view = subprocess.Popen(
            [sys.executable, "-c", IMPATIENT, "view", "--listen", f"127.0.0.1:{port}"],
            env=application.environ({}),
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: asked(port, "/ready")[0] == 200, 60, "the view is ready")
        lines_before = len(log.read_text().splitlines())
        broker_of_our_own.kill()
        wait_until(lambda: "waiting for Kafka" in log.read_text(), NOTICED_S, "it is said")
        time.sleep(4)  # more looks: nothing is said twice
        assert asked(port, "/ready")[0] == 200
        broker_of_our_own.start()
        wait_until(lambda: "Kafka answers again" in log.read_text(), NOTICED_S, "its end is said")
        time.sleep(4)  # more looks: nothing is said twice
        assert len(log.read_text().splitlines()) == lines_before + 2, log.read_text()
        view.terminate()
        assert view.wait(10) == 0
    finally:
        view.kill()
        view.wait()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_soon_although_clients_hold_its_port(application: Application, number: int, code: int) -> None:
    worker, port = started(application, "w0")
    wait_until_ready(worker, port)
    with ExitStack() as held:
        for _ in range(100):
            held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5)).sendall(b"GET /")
        assert asked(port, "/livez")[0] == 200
        began = time.monotonic()
        worker.process.send_signal(number)
        assert worker.process.wait(30) == code, worker.told()
        assert time.monotonic() - began < STOPS_WITHIN_S
    assert "worker stopped: 0 interactions remembered in 0 steps" in worker.told()
    assert "Traceback" not in worker.told()
