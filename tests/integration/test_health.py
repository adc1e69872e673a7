"""What a worker process says about its health, and how it ends, on a Kafka that goes away and comes back."""

import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench import null_model
from model.version.registry import Registry
from stream.commands.command_line import REC2PM
from tests.crash import kafka
from tests.crash.kafka import Kafka
from tests.crash.ports import free_ports
from tests.integration.test_worker import PARTITIONS, ROOT, Application, Running, create_topics
from tests.processes import wait_until

NOTICED_S = 40.0
STOPS_WITHIN_S = 5.0

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
    made = Application(broker_of_our_own.direct, tmp_path)
    create_topics(made)
    null_model.write(Registry(made.models), segment_length=10)
    yield made
    made.close()


def started(application: Application, name: str) -> tuple[Running, int]:
    """A worker, and the port of its probes."""
    (port,) = free_ports(1, random.Random())
    return application.start_worker(WORKER=name, METRICS_LISTEN=f"127.0.0.1:{port}"), port


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
    for number in range(PARTITIONS + 1):
        worker, port = started(application, f"w{number}")
        said = wait_until_ready(worker, port)
        assert f"(application {application.name}, worker w{number})" in said
        ports.append(port)

    def settled() -> bool:
        said = [asked(port, "/readyz") for port in ports]
        return {code for code, _ in said} == {200} and sum(text.startswith("standby") for _, text in said) == 1

    wait_until(settled, 60, "one worker stands by")


@pytest.mark.parametrize("away", ["killed", "paused"])
def test_a_worker_with_nothing_to_do_notices_that_kafka_is_away(
    application: Application, broker_of_our_own: Kafka, away: str
) -> None:
    worker, port = started(application, "w0")
    wait_until_ready(worker, port)

    def waits() -> bool:
        status, text = asked(port, "/metrics")
        assert status == 200, worker.told()
        return "rec2pm_waiting_for_kafka 1.0" in text

    assert not waits()
    if away == "killed":
        broker_of_our_own.kill()
    else:
        broker_of_our_own.pause()
    wait_until(waits, NOTICED_S, "it is noticed")
    time.sleep(6)
    assert waits(), "for as long as Kafka is away"
    assert asked(port, "/livez")[0] == 200
    if away == "killed":
        broker_of_our_own.start()
    else:
        broker_of_our_own.resume()
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
            [*REC2PM, "view", "--listen", f"127.0.0.1:{port}"],
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
        time.sleep(8)
        assert asked(port, "/ready")[0] == 200
        broker_of_our_own.start()
        wait_until(lambda: "Kafka answers again" in log.read_text(), NOTICED_S, "its end is said")
        time.sleep(8)
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
