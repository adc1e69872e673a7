"""`rec2pm trainer`: records become rows once, whatever is killed, and rows become versions."""

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgpack
import polars as pl
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from model.log import read_log
from model.version.registry import ModelVersion, Registry
from stream.kafka import topics
from stream.kafka.models_topic import read_models
from stream.kafka.partitioner import partition_of
from stream.trainer.points import Point
from tests.model.quick import LOG, SMALL
from tests.processes import Committed, environ, session_ms, wait_until

# The embedded broker has neither static members nor transactions that hide what was aborted.
pytestmark = [pytest.mark.timeout(900), pytest.mark.isolation]

PARTITIONS = 2
GONE = str(LOG["user_id"][0])
QUICK = [word for setting in (*SMALL, "max_epochs=1") for word in ("--set", setting)]
WORK_S = 200.0


class Shop:
    """An application, and trainers of it."""

    def __init__(self, bootstrap: str, app: str, folder: Path) -> None:
        self.bootstrap, self.app, self.folder = bootstrap, app, folder
        self.registry = Registry(folder / "models")
        # A trainer that was killed is a member of the group until its session ends, and the next one waits for that.
        session = str(session_ms(1500))
        self.env = environ(bootstrap, app, MODELS=str(folder / "models"), KAFKA_SESSION_TIMEOUT_MS=session)
        self.log = folder / "log"
        self.started: list[subprocess.Popen[bytes]] = []
        (folder / "marks").mkdir()
        planned = topics.plan(app, f"{app}.in", f"{app}.out", PARTITIONS, 1)
        outcomes = topics.create(AdminClient({"bootstrap.servers": bootstrap}), planned)
        assert {outcome.result for outcome in outcomes} == {"created"}

    def send(self, log: pl.DataFrame, *, transaction: str | None = None) -> None:
        """Interactions, in a transaction that is committed or aborted if there is to be one."""
        producer = Producer(
            {"bootstrap.servers": self.bootstrap, "partitioner": "murmur2_random"}
            | ({"transactional.id": f"{self.app}-up"} if transaction else {})
        )
        if transaction:
            producer.init_transactions(30)
            producer.begin_transaction()
        for user, item, ms in log.select("user_id", "item_id", "timestamp").iter_rows():
            producer.produce(f"{self.app}.in", msgpack.packb({"item": item, "ts": ms}), str(user).encode())
        assert producer.flush(30) == 0
        if transaction == "commit":
            producer.commit_transaction(30)
        elif transaction == "abort":
            producer.abort_transaction(30)

    def forget(self, user: str) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap})
        producer.produce(f"{self.app}.in", None, user.encode(), partition_of(user.encode(), PARTITIONS))
        assert producer.flush(30) == 0

    def trainer(self, *options: str, kill_at: str = "", log: Path | None = None) -> subprocess.Popen[bytes]:
        env = {**self.env, "TRAINER_POINTS": kill_at, "TRAINER_MARKS": str(self.folder / "marks")}
        command = [sys.executable, "-P", "-m", "tests.integration.trainer_at" if kill_at else "stream"]
        with self.said_in.open("ab") as said:
            process = subprocess.Popen(
                [
                    *command,
                    "trainer",
                    "--log",
                    str(log or self.log),
                    "--least",
                    "100",
                    "--threads",
                    "1",
                    *QUICK,
                    *options,
                ],
                env=env,
                stdout=said,
                stderr=said,
            )
        self.started.append(process)
        return process

    @property
    def said_in(self) -> Path:
        return self.folder / "said.log"

    def said(self) -> str:
        return self.said_in.read_text()

    def wait_for(self, words: str, times: int = 1) -> None:
        try:
            wait_until(lambda: len(re.findall(words, self.said())) >= times, WORK_S, words)
        except TimeoutError as error:
            raise TimeoutError(f"{error}:\n{self.said()[-4000:]}") from error

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        process.terminate()
        return process.wait(30)

    def versions(self) -> list[ModelVersion]:
        return self.registry.versions("rec2pm")

    def rows(self) -> "Counter[tuple[str, str, int]]":
        frame = read_log(self.log).collect()
        return Counter((str(user), str(item), ms) for user, item, ms in frame.iter_rows())


@pytest.fixture
def shop(bootstrap: str, app: str, tmp_path: Path) -> Iterator[Shop]:
    made = Shop(bootstrap, app, tmp_path)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
            process.wait()


def wanted(log: pl.DataFrame) -> "Counter[tuple[str, str, int]]":
    rows = log.select("user_id", "item_id", "timestamp").iter_rows()
    return Counter((str(user), str(item), ms) for user, item, ms in rows)


def test_a_trainer_that_is_killed_anywhere_loses_and_doubles_nothing_and_trains_once(shop: Shop) -> None:
    """It comes to every point, and is killed there the first time."""
    before, after = LOG.head(len(LOG) // 2), LOG.tail(len(LOG) - len(LOG) // 2)
    shop.send(before)
    first = shop.trainer("--least", "1000000", "--new-memory-format")
    shop.wait_for("reading .*: 2 of 2 partitions")
    shop.wait_for("caught up")
    assert shop.stop(first) == 0, shop.said()
    assert shop.rows() == wanted(before)
    shop.forget(GONE)
    shop.send(after)
    points = [Point.READ, Point.COMMITTED, Point.NOTED, Point.ADDED, Point.TRAINED, Point.PROMOTED]
    while not shop.versions() or (shop.log / ".training").exists():
        process = shop.trainer("--promote", kill_at=",".join(points))
        wait_until(
            lambda process=process: process.poll() is not None or "training ended of=" in shop.said(),
            4 * WORK_S,
            "it goes on",
        )
        if process.poll() is None:
            assert shop.stop(process) == 0
        else:
            # After three deaths of the process that trains, the trainer ends.
            assert process.returncode in (-signal.SIGKILL, 1), shop.said()[-5000:]
    assert {path.name for path in (shop.folder / "marks").iterdir()} == set(points)
    kept = pl.concat([before.filter(pl.col("user_id").cast(pl.String) != GONE), after])
    assert shop.rows() == wanted(kept)
    (version,) = shop.versions()
    manifest = version.manifest()
    assert manifest.forgotten is not None
    assert manifest.forgotten.users == 1
    assert manifest.training is not None
    assert manifest.forgotten.until == {
        str(number): offset
        for number, offset in Committed(shop.bootstrap, f"{shop.app}.trainer", f"{shop.app}.in").offsets().items()
    }
    # It is promoted once, although the trainer was killed before it knew.
    models = read_models({"bootstrap.servers": shop.bootstrap, "group.id": f"{shop.app}.reader"}, shop.app)
    (promotion,) = models.history.values()
    assert (promotion.version, promotion.sha256) == (version.reference, version.digest())
    assert promotion.who.startswith("rec2pm trainer, ")


def test_what_upstream_aborted_is_in_no_log_and_a_second_trainer_is_refused(shop: Shop) -> None:
    aborted = LOG.head(50).with_columns(item_id=pl.lit("never"))
    shop.send(LOG.head(40), transaction="commit")
    shop.send(aborted, transaction="abort")
    shop.send(LOG.slice(40, 40), transaction="commit")
    first = shop.trainer("--least", "1000000")
    shop.wait_for("caught up")
    # With the same log, and with a log of its own.
    same = shop.trainer()
    assert same.wait(WORK_S) == 2
    assert "another trainer on this machine has this log" in shop.said()
    other = shop.trainer(log=shop.folder / "other")
    shop.wait_for("waiting for another trainer of this application to leave: ")
    assert other.poll() is None
    assert shop.stop(first) == 0, shop.said()
    assert shop.rows() == wanted(LOG.head(80))
    # The session of the first one ends, and the second goes on.
    shop.wait_for("caught up", 2)
    assert shop.stop(other) == 0


def test_a_training_that_is_stopped_goes_on_and_the_next_one_starts_from_its_version(shop: Shop) -> None:
    shop.send(LOG)
    long = shop.trainer("--set", "max_epochs=400", "--set", "patience=400", "--set", "checkpoint_minutes=0.001")
    shop.wait_for("epoch [0-9]+ ")
    assert shop.stop(long) == 0, shop.said()
    assert shop.versions() == []
    assert "stopped by SIGTERM" in shop.said()
    (checkpoint,) = shop.log.glob(".training/work/.training/rec2pm/checkpoint.pt")
    assert checkpoint.is_file()
    again = shop.trainer()
    shop.wait_for("resuming at ")
    # The training that was noted goes on with its own recipe: 400 epochs. A user is forgotten meanwhile.
    shop.forget(GONE)
    shop.stop(again)
    third = shop.trainer("--after", "1")
    shop.wait_for("training ended of=.*: wrote rec2pm@1; `rec2pm models promote rec2pm@1` promotes it")
    (version,) = shop.versions()
    manifest = version.manifest()
    assert manifest.config["training"]["max_epochs"] == 1
    assert manifest.forgotten is not None
    assert manifest.forgotten.users == 1
    assert GONE not in {user for user, *_ in shop.rows()}
    # New interactions: the next training starts from the first version.
    shop.send(LOG.tail(30))
    shop.wait_for("training ended of=.*: wrote rec2pm@2")
    assert shop.stop(third) == 0
    second = shop.versions()[-1].manifest()
    assert second.config["from"] == "rec2pm@1"
    assert second.config["keep_memory_format"] is True
    assert second.training is not None
    assert manifest.training is not None
    assert second.training.rows > manifest.training.rows
