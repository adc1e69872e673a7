"""Workers follow what is promoted: under traffic, idle, without partitions, after a restart, and with a registry that
went away.
"""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from model.version.registry import Registry
from stream.commands.broker import Broker
from stream.kafka.models_topic import read_models
from stream.promotion.record import Models, Promotion, Report
from tests import promoting
from tests.crash.ports import free_ports
from tests.integration.test_health import asked
from tests.integration.test_worker import Application, Running, create_topics
from tests.model import tiny
from tests.processes import wait_until

WITHIN_S = 60.0


@pytest.fixture
def application(broker: Broker, tmp_path: Path) -> Iterator[Application]:
    """With two partitions, and two versions of one length: tiny@1 and tiny@2."""
    made = Application(broker.bootstrap, tmp_path, partitions=2)
    create_topics(made)
    tiny.add(made.models, seed=1)
    tiny.add(made.models, seed=2)
    yield made
    made.close()


def models(application: Application) -> Models:
    return read_models({"bootstrap.servers": application.bootstrap}, application.name)


def promote(application: Application, reference: str, **different: object) -> Promotion:
    """A record without the gate, with fields that a test wants otherwise."""
    version = Registry(str(application.models)).resolve(reference)
    return promoting.promote(application.bootstrap, application.name, version, **different)


def wait_for(application: Application, worker: str, state: str, version: str) -> Report:
    """Until the worker's own record says so. `version`: what it serves, or what it refuses or waits for."""

    def there() -> bool:
        told = models(application).workers.get(worker)
        return told is not None and told.state == state and version == (told.serves if state == "serving" else told.of)

    wait_until(there, WITHIN_S, f"{worker} is {state} with {version}: {models(application).workers}")
    return models(application).workers[worker]


def send(application: Application, users: int, each: int = 1) -> None:
    application.produce(
        [
            (f"user-{user}".encode(), msgpack.packb({"item": f"item-{1 + (user + at) % 60}"}))
            for at in range(each)
            for user in range(users)
        ]
    )


def list_models(application: Application) -> list[str]:
    """The versions of all lists, in the order of the input."""
    lists = [msgpack.unpackb(each.value()) for each in application.read(application.recommendations) if each.value()]
    return [each["model"] for each in sorted(lists, key=lambda each: (each["partition"], each["offset"]))]


def started(application: Application, name: str, **settings: object) -> tuple[Running, int]:
    (port,) = free_ports(1, random.Random())
    return application.start_worker(WORKER=name, METRICS_LISTEN=f"127.0.0.1:{port}", **settings), port


def test_a_promotion_reaches_a_worker_under_traffic_and_lives_longer_than_its_process(application: Application) -> None:
    worker, port = started(application, "w1", MODEL="tiny@1")
    wait_for(application, "w1", "serving", "tiny@1")
    send(application, users=6)
    application.wait_until(6, worker)
    promotion = promote(application, "tiny@2")
    told = wait_for(application, "w1", "serving", "tiny@2")
    assert (told.source, told.promotion) == ("promoted", promotion.id)
    send(application, users=6)
    application.wait_until(12, worker)
    told_by_metrics = asked(port, "/metrics")[1]
    assert 'rec2pm_model_info{model="tiny@2",' in told_by_metrics
    assert "rec2pm_serves_promoted 1.0" in told_by_metrics
    assert 'rec2pm_promotions_total{result="served"} 1.0' in told_by_metrics
    worker.kill()  # the promotion, not REC2PM_MODEL, decides after a restart
    worker, _ = started(application, "w1", MODEL="tiny@1")
    send(application, users=6)
    application.wait_until(18, worker)
    found = list_models(application)
    assert sorted(found) == ["tiny@1"] * 6 + ["tiny@2"] * 12
    assert worker.stop()[0] == 0
    assert "w1" not in models(application).workers, "a clean stop takes the record back"


def test_idle_workers_and_those_without_a_partition_follow_too_and_a_pinned_one_does_not(
    application: Application,
) -> None:
    names = [f"w{number}" for number in range(application.partitions + 1)]
    for name in names:
        started(application, name, MODEL="tiny@1")
    started(application, "pinned", MODEL="tiny@1", FOLLOW="none")
    for name in (*names, "pinned"):
        wait_for(application, name, "serving", "tiny@1")
    promote(application, "tiny@2")
    for name in names:
        wait_for(application, name, "serving", "tiny@2")
    assert models(application).workers["pinned"].serves == "tiny@1"
    started(application, "late", MODEL="tiny@1")
    told = wait_for(application, "late", "serving", "tiny@2")
    assert told.source == "promoted"


def test_a_promotion_of_another_file_is_refused_and_the_next_good_one_serves(application: Application) -> None:
    worker, port = started(application, "w1", MODEL="tiny@1")
    wait_for(application, "w1", "serving", "tiny@1")
    promote(application, "tiny@2", sha256="0" * 64)
    told = wait_for(application, "w1", "refused", "tiny@2")
    assert "0" * 64 in str(told.why)
    send(application, users=3)
    application.wait_until(3, worker)
    assert set(list_models(application)) == {"tiny@1"}
    assert 'rec2pm_promotions_total{result="refused"} 1.0' in asked(port, "/metrics")[1]
    assert "rec2pm_serves_promoted 0.0" in asked(port, "/metrics")[1]
    promote(application, "tiny@2")
    wait_for(application, "w1", "serving", "tiny@2")


def test_a_worker_that_starts_without_the_registry_serves_what_it_has_or_waits_alive_and_not_ready(
    application: Application,
) -> None:
    first, _ = started(application, "w1", MODEL="tiny@1")
    wait_for(application, "w1", "serving", "tiny@1")
    first.stop()
    away = application.models.with_name("away")
    promote(application, "tiny@2")
    shutil.move(application.models, away)
    local, _ = started(application, "w1", MODEL="tiny@1")
    told = wait_for(application, "w1", "waiting", "tiny@2")
    assert (told.serves, told.source) == ("tiny@1", "local")
    send(application, users=3)
    application.wait_until(3, local)
    assert set(list_models(application)) == {"tiny@1"}
    without, port = started(application, "w2", MODEL="tiny@1", STATE_DIR=application.folder / "elsewhere")
    wait_until(lambda: asked(port, "/readyz")[0] == 503, WITHIN_S, "it answers")
    wait_for(application, "w2", "waiting", "tiny@2")
    assert asked(port, "/livez")[0] == 200
    assert "waits for tiny@2" in asked(port, "/readyz")[1]
    shutil.move(away, application.models)
    for name in ("w1", "w2"):
        wait_for(application, name, "serving", "tiny@2")
    wait_until(lambda: asked(port, "/readyz")[0] == 200, WITHIN_S, "it is ready")
    assert without.process.poll() is None
