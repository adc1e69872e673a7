"""Bad versions are promoted under traffic, past all checks: the old one serves on, the worker says why, and the next
good one serves.

Here is one of each way in which a worker finds out. Every other kind ends a trial as one of these does
(`tests/model/version/test_bad_versions.py`).
"""

import random
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from model.version.registry import ModelVersion, Registry
from stream.commands.broker import Broker
from stream.kafka.models_topic import read_models
from stream.promotion.record import Promotion, Report
from tests.crash.ports import free_ports
from tests.integration.test_worker import Application, create_topics
from tests.model import bad_versions
from tests.model.bad_versions import KINDS
from tests.processes import wait_until
from tests.promoting import promote

WITHIN_S = 60.0
TRIAL_S = 12.0
FOUND_OUT = {
    "a file is missing": "there is nothing to fetch: it waits",
    "other bytes": "what was fetched is not what was promoted",
    "raises in warm-up": "the trial says why",
    "other golden lists": "the trial says why, after all calls have been answered",
    "hangs in warm-up": "the trial is over its time",
    "grows in warm-up": "the trial is over its memory",
    "crashes in warm-up": "the process of the trial ends",
    "too large": "no trial is begun",
}
FREE_BYTES = 600 << 20
_WORKER = f"""
import sys
from model.version import memory
from stream import __main__ as command
from stream.promotion import loading
loading.Loader.__init__.__kwdefaults__["trial_s"] = {TRIAL_S}
memory.free_bytes = lambda: {FREE_BYTES}
sys.argv[1:] = ["worker"]
command.main()
"""
"""`rec2pm worker` that waits less long for a version that hangs, on a machine with less memory."""


@pytest.fixture
def application(broker: Broker, tmp_path: Path) -> Iterator[Application]:
    made = Application(broker.bootstrap, tmp_path)
    create_topics(made)
    yield made
    made.close()


def test_the_old_version_serves_on_whatever_is_promoted_and_the_next_good_one_serves(
    broker: Broker, application: Application
) -> None:
    registry = Registry(application.models)
    first, second = bad_versions.good(registry), bad_versions.good(registry, salt=5)
    (port,) = free_ports(1, random.Random())
    worker = application.start_worker(
        command=[sys.executable, "-c", _WORKER],
        WORKER="w1",
        MODEL=first.reference,
        METRICS_LISTEN=f"127.0.0.1:{port}",
    )
    wait_until(lambda: _told(application) is not None, WITHIN_S, f"the worker serves {first.reference}")
    served = _Served(application)
    for number, kind in enumerate(FOUND_OUT, start=1):
        bad = KINDS[kind]
        promotion = _promote(
            application,
            bad.make(registry),
            segment_length=bad_versions.SEGMENT_LENGTH,
            forced=("files", "trial"),
            why="the test forces it",
        )
        told = _settled(application, promotion)
        assert told.state == ("waiting" if bad.waits else "refused"), (kind, told)
        assert bad.why in str(told.why), kind
        assert (told.serves, told.of) == (first.reference, promotion.version), kind
        application.produce([(f"user-{each}".encode(), msgpack.packb({"item": each})) for each in range(5)])
        application.wait_until(5 * number, worker)
        served.by(first, 5)
    refused = sum(not KINDS[kind].waits for kind in FOUND_OUT)
    metrics = _metrics(port)
    assert f'rec2pm_promotions_total{{result="refused"}} {refused:.1f}' in metrics
    assert "rec2pm_serves_promoted 0.0" in metrics
    status = application.rec2pm("models", "status")
    assert status.returncode == 1, status.stdout + status.stderr
    if broker.hides_aborted:  # the embedded broker does not name the members of a group
        assert bad.why in status.stdout
    log = worker.log.read_text()
    assert log.count("version refused") == refused
    good = _promote(application, second)
    wait_until(lambda: _served_now(application) == good.id, WITHIN_S, f"{second.reference} serves")
    application.produce([(b"user-0", msgpack.packb({"item": 1}))])
    application.wait_until(5 * len(FOUND_OUT) + 1, worker)
    served.by(second, 1)
    assert "rec2pm_serves_promoted 1.0" in _metrics(port)
    assert not broker.hides_aborted or application.rec2pm("models", "status").returncode == 0
    assert worker.stop()[0] == 0


class _Served:
    """The lists that the test has not looked at."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._seen: set[tuple[int | None, int | None]] = set()

    def by(self, version: ModelVersion, count: int) -> None:
        """So many lists are new, all of them of this version."""
        lists = {
            (each.partition(), each.offset()): msgpack.unpackb(each.value() or b"")["model"]
            for each in self._application.read(self._application.recommendations)
        }
        assert [lists[place] for place in lists.keys() - self._seen] == [version.reference] * count
        self._seen = set(lists)


def _promote(application: Application, version: ModelVersion, **said: object) -> Promotion:
    return promote(application.bootstrap, application.name, version, **said)  # type: ignore[arg-type]


def _told(application: Application) -> Report | None:
    return read_models({"bootstrap.servers": application.bootstrap}, application.name).workers.get("w1")


def _served_now(application: Application) -> str:
    told = _told(application)
    return "" if told is None else told.promotion


def _settled(application: Application, promotion: Promotion) -> Report:
    """The worker's report once it is through with this promotion."""

    told: list[Report] = []

    def settled() -> bool:
        report = _told(application)
        told.extend([] if report is None else [report])
        return told[-1].of_promotion == promotion.id and told[-1].state != "loading"

    wait_until(settled, WITHIN_S, f"the worker is through with {promotion.version}")
    return told[-1]


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
        return text
