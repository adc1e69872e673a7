"""`rec2pm state import` on a Kafka with transactions: a fresh application goes on as one that has lived through all."""

import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import msgpack
import numpy as np
import polars as pl
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from state.codec import SEGMENT_LENGTH
from stream.commands.broker import Broker
from stream.kafka import topics
from stream.kafka.group_members import group_members
from stream.state_rows import read_facts
from tests.model import tiny
from tests.processes import Committed, environ, read_committed, rec2pm, wait_until, workers

pytestmark = [pytest.mark.isolation, pytest.mark.timeout(280)]

USERS = [f"user-{number}" for number in range(9)]


@dataclass
class Shop:
    """An application; its interactions topic may be that of another one."""

    bootstrap: str
    app: str
    folder: Path
    interactions: str
    partitions: int = 3

    @property
    def env(self) -> dict[str, str]:
        (self.folder / self.app).mkdir(exist_ok=True)
        return environ(
            self.bootstrap,
            self.app,
            INTERACTIONS_TOPIC=self.interactions,
            MODELS=str(self.folder / "models"),
            STATE_DIR=str(self.folder / self.app / "state"),
            METRICS_LISTEN="",
            KEEP_SEGMENTS="2",
        )

    def create(self) -> "Shop":
        planned = topics.plan(self.app, self.interactions, f"{self.app}.out", self.partitions, 1)
        topics.create(AdminClient({"bootstrap.servers": self.bootstrap}), planned)
        return self

    def send(self, count: int, seed: int) -> None:
        chosen = random.Random(seed)
        producer = Producer({"bootstrap.servers": self.bootstrap, "partitioner": "murmur2_random"})
        for at in range(count):
            item = chosen.choice([f"item-{chosen.randrange(1, 60)}", chosen.randrange(9), -5])
            value = msgpack.packb({"item": item, "ts": 1_700_000_000_000 + 1000 * seed + at})
            producer.produce(self.interactions, value, chosen.choice(USERS[: 3 + seed]).encode())
        assert producer.flush(30) == 0

    def work(self, total: int) -> None:
        """A worker, until so many records are committed."""
        committed = Committed(self.bootstrap, self.app, self.interactions)
        with workers(1, self.env, self.folder / self.app) as (worker,):
            wait_until(lambda: committed.total() >= total or not worker.running(), 60, "committed")
            assert worker.running(), worker.log.read_text()[-3000:]

    def export(self) -> Path:
        out = self.folder / f"{self.app}.parquet"
        said = rec2pm("state", "export", "--out", str(out), env=self.env, timeout=60)
        assert said.returncode == 0, said.stderr
        return out

    def restore(self, file: Path, *options: str, code: int = 0) -> str:
        said = rec2pm("state", "import", str(file), *options, env=self.env, timeout=60)
        assert "Traceback" not in said.stderr, said.stderr
        assert said.returncode == code, (said.stdout, said.stderr)
        return said.stdout + said.stderr

    def killed(self, file: Path, at: str) -> None:
        module = [sys.executable, "-P", "-m", "tests.integration.killed_at"]
        command = [*module, "state", "import", str(file), "--position", "end", "--execute"]
        said = subprocess.run(command, env={**self.env, "KILL_AT": at}, capture_output=True, timeout=60, check=False)
        assert said.returncode == -signal.SIGKILL, said.stderr


@pytest.fixture(scope="module")
def lived(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """It has lived through 300 interactions; users of two of its three partitions."""
    app, folder = f"test-{uuid4().hex[:12]}", tmp_path_factory.mktemp("lived")
    tiny.add(folder / "models")
    shop = Shop(broker.bootstrap, app, folder, f"{app}.in").create()
    shop.send(300, 1)
    shop.work(300)
    return shop


@pytest.fixture(scope="module")
def file(lived: Shop) -> Path:
    """Its states then."""
    return lived.export().rename(lived.folder / "states.parquet")


def states(file: Path) -> pl.DataFrame:
    return pl.read_parquet(file).sort("user_id")


def test_workers_go_on_as_if_they_had_lived_through_all(lived: Shop, file: Path) -> None:
    """States of the first part, imported; then the second part: as the application that has lived through both."""
    lived.send(300, 2)
    lived.work(600)
    fresh = Shop(lived.bootstrap, f"{lived.app}-b", lived.folder, lived.interactions).create()

    preview = fresh.restore(file, "--position", "file")
    facts = read_facts(file)
    assert facts is not None
    places = ", ".join(f"{lived.interactions}[{n}]@{facts.positions.get(str(n), 0)}" for n in range(3))
    assert f"workers go on where the states of the file end: {places}" in preview
    assert "nothing was written: add --execute" in preview
    assert read_committed(lived.bootstrap, f"{fresh.app}.changelog") == []
    fresh.restore(file, "--position", "file", "--execute")
    assert states(fresh.export()).equals(states(file))
    assert Committed(lived.bootstrap, fresh.app, lived.interactions).total() == 300

    fresh.work(600)

    admin = AdminClient({"bootstrap.servers": lived.bootstrap})
    wait_until(lambda: not group_members(admin, fresh.app), 30, "the worker has left")
    one, other = states(lived.export()), states(fresh.export())
    assert len(one) == 5
    assert max(one["folds"]) > 3
    inexact = ["memory", "other_memories"]
    assert one.drop(inexact).equals(other.drop(inexact))
    for mine, theirs in zip(one["memory"], other["memory"], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
    # A worker that was killed is a member of the group until its session ends.
    wait_until(
        lambda: "is not fresh: its group has committed offset" in fresh.restore(file, "--position", "end", code=2),
        60,
        "the group has no member",
    )


def test_an_import_that_is_killed_is_no_state_and_is_finished_by_the_same_command(lived: Shop, file: Path) -> None:
    """Into twice as many partitions, and at the end of a topic that has records already."""
    fresh = Shop(lived.bootstrap, f"{lived.app}-c", lived.folder, f"{lived.app}-c.in", partitions=6).create()
    fresh.send(20, 3)
    for at in ("before 2", "after 2", "after 2"):  # the note is not committed; it is; states are, without the end
        fresh.killed(file, at)
    with workers(1, fresh.env, fresh.folder / fresh.app) as (worker,):
        assert worker.ended(60) == 1
        assert "`rec2pm state import` has not finished" in worker.log.read_text()
    admin = AdminClient({"bootstrap.servers": lived.bootstrap})
    wait_until(lambda: not group_members(admin, fresh.app), 30, "the worker has left")
    fresh.killed(file, "before 4")  # the end is not committed
    assert SEGMENT_LENGTH not in {each.key() for each in read_committed(lived.bootstrap, f"{fresh.app}.changelog")}

    other = lived.folder / "other.parquet"
    pl.read_parquet(file).head(2).write_parquet(other, metadata={"rec2pm": pl.read_parquet_metadata(file)["rec2pm"]})
    assert "has a part of another import" in fresh.restore(other, "--position", "end", "--execute", code=2)
    assert "was begun before, and was not finished" in fresh.restore(file, "--position", "end", "--execute")

    assert states(fresh.export()).drop("partition").equals(states(file).drop("partition"))
    assert Committed(lived.bootstrap, fresh.app, fresh.interactions).total() == 20


def test_what_does_not_fit_is_refused_by_name(lived: Shop, file: Path) -> None:
    fresh = Shop(lived.bootstrap, f"{lived.app}-d", lived.folder, f"{lived.app}-d.in", partitions=2).create()
    for position, what in (
        ("file", "offsets of the one mean nothing in the other"),
        ("0:0", "expected each of"),
        ("0:0,1:7", "workers would go on at 7"),
        ("yesterday", "expected end, file, or PARTITION:OFFSET"),
    ):
        assert what in fresh.restore(file, "--position", position, code=2)
    pl.DataFrame({"user_id": ["ann"]}).write_parquet(lived.folder / "others.parquet")
    assert "is no file of states" in fresh.restore(lived.folder / "others.parquet", "--position", "end", code=2)
    assert "is not fresh" in lived.restore(file, "--position", "file", code=2)
    moved = Shop(lived.bootstrap, f"{lived.app}-e", lived.folder, lived.interactions).create()
    said = rec2pm(
        "state", "import", str(file), "--position", "file", env={**moved.env, "REC2PM_PARTITIONER": "crc32"}, timeout=60
    )
    assert said.returncode == 2
    assert "with --position file users must stay where their records are" in said.stderr
