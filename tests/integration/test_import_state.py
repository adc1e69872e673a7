"""`rec2pm state import` on a Kafka with transactions: what a replay folded is a fresh application, which goes on as one
that has lived through all.
"""

import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
from tests import as_served
from tests.model import tiny
from tests.processes import Committed, environ, read_committed, rec2pm, wait_until, workers

pytestmark = [pytest.mark.isolation, pytest.mark.timeout(280)]

ROWS, FIRST = 600, 351
"""Interactions of the log, and how many of them are replayed before the application exists."""


@dataclass
class Shop:
    """An application; its interactions topic may be that of another one."""

    bootstrap: str
    app: str
    folder: Path
    interactions: str
    partitions: int = 3
    settings: Mapping[str, str] = field(default_factory=dict)

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
            RECOMMEND="1",
            TOP_K="7",
            **self.settings,
        )

    def create(self) -> "Shop":
        planned = topics.plan(self.app, self.interactions, f"{self.app}.out", self.partitions, 1)
        topics.create(AdminClient({"bootstrap.servers": self.bootstrap}), planned)
        return self

    def run(self, *arguments: str, code: int = 0) -> str:
        said = rec2pm(*arguments, env=self.env, timeout=100)
        assert "Traceback" not in said.stderr, said.stderr
        assert said.returncode == code, (said.stdout, said.stderr)
        return said.stdout + said.stderr

    def send(self, count: int) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "partitioner": "murmur2_random"})
        for at in range(count):
            value = msgpack.packb({"item": at, "ts": 1_700_000_000_000 + at})
            producer.produce(self.interactions, value, f"user-{at % 7}".encode())
        assert producer.flush(30) == 0

    def work(self, total: int) -> None:
        """A worker, until so many records are committed."""
        committed = self.committed()
        with workers(1, self.env, self.folder / self.app) as (worker,):
            wait_until(lambda: committed.total() >= total or not worker.running(), 60, "committed")
            assert worker.running(), worker.log.read_text()[-3000:]

    def committed(self) -> Committed:
        return Committed(self.bootstrap, self.app, self.interactions)

    def export(self) -> Path:
        out = self.folder / f"{self.app}.parquet"
        self.run("state", "export", "--out", str(out))
        return out

    def restore(self, file: Path, *options: str, code: int = 0) -> str:
        return self.run("state", "import", str(file), *options, code=code)

    def killed(self, file: Path, at: str) -> None:
        module = [sys.executable, "-P", "-m", "tests.integration.killed_at"]
        command = [*module, "state", "import", str(file), "--position", "end", "--execute"]
        said = subprocess.run(command, env={**self.env, "KILL_AT": at}, capture_output=True, timeout=60, check=False)
        assert said.returncode == -signal.SIGKILL, said.stderr


def log() -> pl.DataFrame:
    """Items that are text and integers, some that no model knows, and equal times, two of them where the log is cut."""
    drawn = np.random.default_rng(16)
    items = drawn.integers(1, tiny.V + 6, ROWS)
    return pl.DataFrame(
        {
            "user_id": [f"user-{user}" for user in np.minimum(drawn.geometric(0.08, ROWS), 30)],
            "item_id": [f"item-{item}" if item < tiny.V + 2 else str(item - tiny.V - 4) for item in items],
            "timestamp": 1_700_000_000_000 + 40_000_000 * (np.arange(ROWS) // 2),
        }
    )


@pytest.fixture(scope="module")
def shop(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Its model looks at the times of interactions too. No worker has been there."""
    app, folder = f"test-{uuid4().hex[:12]}", tmp_path_factory.mktemp("imported")
    tiny.add(folder / "models", config=tiny.config("full", "pos_time"))
    for name, part in (("whole", log()), ("first", log()[:FIRST]), ("rest", log()[FIRST:])):
        part.write_parquet(folder / f"{name}.parquet")
    return Shop(broker.bootstrap, app, folder, f"{app}.in").create()


def replayed(shop: Shop, name: str, *options: str) -> Path:
    """The folder of the model, of a replay of one of the logs."""
    out = shop.folder / f"replay-{name}"
    shop.run(
        "replay", str(shop.folder / f"{name}.parquet"), "--model", "tiny@1", "--jobs", "1", "--out", str(out), *options
    )
    return out / "tiny@1"


@pytest.fixture(scope="module")
def file(shop: Shop) -> Path:
    """The states after the first part of the log, from a replay in its usual number of partitions."""
    return replayed(shop, "first") / "state.parquet"


@pytest.fixture(scope="module")
def lived(shop: Shop, file: Path) -> Path:
    """States of the first part, imported; then a worker has taken the second part. Its states then."""
    shop.run("produce", str(shop.folder / "first.parquet"))
    preview = shop.restore(file, "--position", "end")
    assert f"workers go on at the present end of {shop.interactions}" in preview
    assert "nothing was written: add --execute" in preview
    assert read_committed(shop.bootstrap, f"{shop.app}.changelog") == []
    shop.restore(file, "--position", "end", "--execute")
    assert states(shop.export()).drop("partition").equals(states(file).drop("partition"))
    assert shop.committed().total() == FIRST
    shop.run("produce", str(shop.folder / "rest.parquet"))
    shop.work(ROWS)
    return shop.export()


def states(file: Path) -> pl.DataFrame:
    return pl.read_parquet(file).sort("user_id")


def test_workers_go_on_behind_a_replay_as_if_they_had_lived_through_all(shop: Shop, lived: Path) -> None:
    """As one replay of the whole log: every state, and every list from there on, at its offset."""
    whole = replayed(shop, "whole", "--partitions", "3")
    made = pl.read_parquet(whole.parent / "interactions.parquet")
    ends = dict(made.filter(pl.col("row") < FIRST).group_by("partition").len().rows())
    later = pl.col("offset") >= pl.col("partition").replace_strict(ends, return_dtype=pl.Int64)
    lists = pl.read_parquet(whole / "recommendations.parquet").filter(later)
    published = as_served.published(read_committed(shop.bootstrap, f"{shop.app}.out"))
    assert len(published) == ROWS - FIRST
    assert [*as_served.list_differences(published, lists)] == []
    assert [*as_served.state_differences(states(lived), states(whole / "state.parquet"))] == []
    assert max(states(lived)["folds"]) > 3
    assert states(lived)["memory"].list.len().max()


def test_states_of_an_application_are_imported_where_they_end(shop: Shop, lived: Path) -> None:
    fresh = Shop(shop.bootstrap, f"{shop.app}-b", shop.folder, shop.interactions).create()
    preview = fresh.restore(lived, "--position", "file", "--execute")
    facts = read_facts(lived)
    assert facts is not None
    places = ", ".join(f"{shop.interactions}[{n}]@{facts.positions[str(n)]}" for n in range(3))
    assert f"workers go on where the states of the file end: {places}" in preview
    assert states(fresh.export()).equals(states(lived))
    assert fresh.committed().offsets() == shop.committed().offsets()
    assert "is not fresh: its group has committed offset" in fresh.restore(lived, "--position", "end", code=2)


def test_an_import_that_is_killed_is_no_state_and_is_finished_by_the_same_command(shop: Shop, file: Path) -> None:
    """Into another number of partitions, and at the end of a topic that has records already."""
    fresh = Shop(shop.bootstrap, f"{shop.app}-c", shop.folder, f"{shop.app}-c.in", partitions=6).create()
    fresh.send(20)
    for at in ("before 2", "after 2", "after 2"):  # the note is not committed; it is; states are, without the end
        fresh.killed(file, at)
    with workers(1, fresh.env, fresh.folder / fresh.app) as (worker,):
        assert worker.ended(60) == 1
        assert "`rec2pm state import` has not finished" in worker.log.read_text()
    admin = AdminClient({"bootstrap.servers": shop.bootstrap})
    wait_until(lambda: not group_members(admin, fresh.app), 30, "the worker has left")
    fresh.killed(file, "before 4")  # the end is not committed
    assert SEGMENT_LENGTH not in {each.key() for each in read_committed(shop.bootstrap, f"{fresh.app}.changelog")}

    other = shop.folder / "other.parquet"
    pl.read_parquet(file).head(2).write_parquet(other, metadata={"rec2pm": pl.read_parquet_metadata(file)["rec2pm"]})
    assert "has a part of another import" in fresh.restore(other, "--position", "end", "--execute", code=2)
    assert "was begun before, and was not finished" in fresh.restore(file, "--position", "end", "--execute")

    assert states(fresh.export()).drop("partition").equals(states(file).drop("partition"))
    assert fresh.committed().total() == 20


def test_what_does_not_fit_is_refused_by_name(shop: Shop, file: Path, lived: Path) -> None:
    fresh = Shop(shop.bootstrap, f"{shop.app}-d", shop.folder, f"{shop.app}-d.in", partitions=2).create()
    pl.DataFrame({"user_id": ["ann"]}).write_parquet(shop.folder / "others.parquet")
    for states_of, position, what in (
        (lived, "file", "offsets of the one mean nothing in the other"),
        (file, "file", "does not say where its states end"),
        (file, "0:0", "expected each of"),
        (file, "0:0,1:7", "workers would go on at 7"),
        (file, "yesterday", "expected end, file, or PARTITION:OFFSET"),
        (shop.folder / "others.parquet", "end", "is no file of states"),
    ):
        assert what in fresh.restore(states_of, "--position", position, code=2)
    assert "is not fresh" in shop.restore(lived, "--position", "file", code=2)
    kept = replace(fresh, settings={"PARTITIONER": "ignore"})
    assert "does not say of which topic its partitions are" in kept.restore(file, "--position", "end", code=2)
    moved = Shop(shop.bootstrap, f"{shop.app}-e", shop.folder, shop.interactions).create()
    moved = replace(moved, settings={"PARTITIONER": "crc32"})
    said = moved.restore(lived, "--position", "file", code=2)
    assert "with --position file users must stay where their records are" in said
