"""`rec2pm models list | history | rollback | status` beside a broker and workers."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from stream.commands.broker import Broker
from stream.commands.main import main
from stream.promotion.record import CHAMPION, iso
from tests.integration.test_promotions import models, promote, send, started, wait_for
from tests.integration.test_worker import Application, create_topics
from tests.model import tiny
from tests.processes import SESSION_MS, wait_until


@pytest.fixture
def application(broker: Broker, tmp_path: Path) -> Iterator[Application]:
    """With three versions of one length; the first two have the same weights."""
    made = Application(broker.bootstrap, tmp_path)
    create_topics(made)
    for seed in (1, 1, 2):
        tiny.add(made.models, seed=seed)
    yield made
    made.close()


def run(application: Application, *arguments: object, code: int = 0) -> Result:
    done = CliRunner().invoke(main, ["models", *map(str, arguments)], env=application.environ({}))
    assert done.exit_code == code, (done.output, done.exception)
    return done


def test_what_was_promoted_is_listed_and_rolled_back_step_by_step(application: Application) -> None:
    assert run(application, "history").stdout == ""
    assert "nothing is promoted as champion" in run(application, "rollback", code=1).stderr
    first = promote(application, "tiny@1")
    assert "nothing was promoted as champion before tiny@1" in run(application, "rollback", code=1).stderr
    promote(application, "tiny@2", why="a new day", who="ada@laptop")
    promote(application, "tiny@3", why="two days", forced=("speed",))
    other = promote(application, "tiny@2", alias="challenger")

    listed = run(application, "list").stdout.splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [
        ["tiny@1", "-"],
        ["tiny@2", "challenger"],
        ["tiny@3", "champion"],
    ]
    assert json.loads(run(application, "list", "--json").stdout.splitlines()[2])["aliases"] == ["champion"]

    before = models(application)
    would = run(application, "rollback", "--dry-run").stdout
    assert "would roll champion back from tiny@3 (tests promoted tiny@3 at " in would
    assert "to tiny@2 (ada@laptop promoted tiny@2 at " in would
    assert "the memory format changes from " in would
    assert models(application) == before

    done = run(application, "rollback", "--why", "too slow").stdout
    assert done.startswith("rolling champion back from tiny@3")
    assert "`rec2pm models status --wait`" in done
    champion = models(application).aliases[CHAMPION]
    assert (champion.version, champion.previous, champion.kind, champion.why) == (
        "tiny@2",
        "tiny@3",
        "rollback",
        "too slow",
    )
    assert "both have the memory format" in run(application, "rollback").stdout
    champion = models(application).aliases[CHAMPION]
    assert (champion.version, champion.uri, champion.sha256) == (first.version, first.uri, first.sha256)
    assert "before tiny@1" in run(application, "rollback", code=1).stderr
    assert models(application).aliases["challenger"] == other

    lines = run(application, "history").stdout.splitlines()
    assert [line.split()[1:5] for line in lines if line[:2] == "20"] == [
        ["rollback", "champion", "tiny@1", "tiny@2"],
        ["rollback", "champion", "tiny@2", "tiny@3"],
        ["promote", "challenger", "tiny@2", "-"],
        ["promote", "champion", "tiny@3", "tiny@2"],
        ["promote", "champion", "tiny@2", "tiny@1"],
        ["promote", "champion", "tiny@1", "-"],
    ]
    assert "    why: two days" in lines
    assert "    forced past: speed" in lines
    newest = run(application, "history", "--limit", 1, "--json")
    assert json.loads(newest.stdout)["id"] == champion.id
    assert "5 older ones are left out" in newest.stderr


@pytest.mark.isolation  # the embedded broker does not say who is in the group
def test_status_waits_until_every_worker_serves_it_and_names_who_does_not(application: Application) -> None:
    assert "nothing is promoted as champion" in run(application, "status", code=1).stdout
    short = {"MODEL": "tiny@1", "KAFKA_SESSION_TIMEOUT_MS": SESSION_MS}
    one, _ = started(application, "one", **short)
    two, _ = started(application, "two", **short)
    for name in ("one", "two"):
        wait_for(application, name, "serving", "tiny@1")
    send(application, users=6)
    application.wait_until(6, one)
    promote(application, "tiny@3")
    waited = run(application, "status", "--wait", "--timeout", 90)
    assert "PASS 2 workers of the group serve tiny@3: all of them" in waited.stdout
    status = json.loads(run(application, "status", "--json").stdout)
    assert [(each["worker"], each["serves"], each["doing"]) for each in status["workers"]] == [
        ("one", "tiny@3", "serving"),
        ("two", "tiny@3", "serving"),
    ]
    assert sum(each["partitions"] for each in status["workers"]) == 3

    promote(application, "tiny@2", sha256="f" * 64)
    for name in ("one", "two"):
        wait_for(application, name, "refused", "tiny@2")
    began = time.monotonic()
    waited = run(application, "status", "--wait", "--timeout", 2, code=1)
    assert time.monotonic() - began > 2
    assert "FAIL 0 of 2 workers of the group serve tiny@2" in waited.stdout
    assert waited.stdout.count("    it refuses tiny@2: ") == 2
    assert "waits: 0 of 2" in waited.stderr, "progress is said too"

    run(application, "rollback", "--why", "wrong hash")
    two.kill()
    wait_until(lambda: " gone " in run_status(application), 60, "Kafka has noticed that a worker is gone")
    assert "it is not in the group, and did not stop cleanly" in run_status(application)
    waited = run(application, "status", "--wait", "--timeout", 60)
    assert "PASS 1 worker of the group serves tiny@3: all of them" in waited.stdout
    assert one.stop()[0] == 0
    # The group waits for a worker with a name that stopped.
    nobody = "no worker is in the group that follows champion"
    wait_until(lambda: nobody in run_status(application), 60, "the group is empty")


def run_status(application: Application) -> str:
    return CliRunner().invoke(main, ["models", "status"], env=application.environ({})).stdout


def test_status_ends_its_wait_as_soon_as_it_is_served(application: Application) -> None:
    one, _ = started(application, "one", MODEL="tiny@1")
    wait_for(application, "one", "serving", "tiny@1")
    send(application, users=6)
    application.wait_until(6, one)
    later = threading.Timer(1, lambda: promote(application, "tiny@3"))
    later.start()
    began = time.monotonic()
    waited = run(application, "status", "--wait", "--timeout", 120)
    later.join()
    assert time.monotonic() - began < 100
    assert "nothing is promoted as champion" in waited.stderr
    assert "PASS 1 worker of the group serves tiny@3" in waited.stdout


def test_history_says_which_version_served_a_user_at_a_time(application: Application) -> None:
    assert "no version has served user 'user-1'" in run(application, "history", "--user", "user-1", code=1).stderr
    assert "--at needs --user" in run(application, "history", "--at", "2026-01-01", code=2).stderr
    assert "is not a time" in run(application, "history", "--user", "a", "--at", "noon", code=2).stderr
    one, _ = started(application, "one", MODEL="tiny@1")
    send(application, users=6)
    application.wait_until(6, one)
    between = iso(time.time_ns() // 1_000_000 + 1_000)
    time.sleep(2)  # times are said to the second
    promotion = promote(application, "tiny@3", who="ada@laptop")
    wait_for(application, "one", "serving", "tiny@3")
    send(application, users=6)
    application.wait_until(12, one)

    both = run(application, "history", "--user", "user-1").stdout.splitlines()
    assert [line.split()[2] for line in both[1:]] == ["tiny@3", "tiny@1"]
    assert f"ada@laptop promoted tiny@3 at {iso(promotion.when_ms)}" in both[1]
    assert "a setting named it" in both[2]
    then = json.loads(run(application, "history", "--user", "user-1", "--at", between, "--json").stdout)
    assert (then["version"], then["promotion"]) == ("tiny@1", None)
    assert (then["topic"], then["offset"]) == (application.interactions, 0)
    now = json.loads(run(application, "history", "--user", "user-1", "--at", "2100-01-01", "--json").stdout)
    assert (now["version"], now["promotion"]["id"], now["until"]) == ("tiny@3", promotion.id, None)
    assert "at 1990-01-01" in run(application, "history", "--user", "user-1", "--at", "1990-01-01", code=1).stderr
