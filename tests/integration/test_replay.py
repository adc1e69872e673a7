"""What live workers did is what a replay of their topic does: through a kill, a promotion to another memory format and
the way back, users who are forgotten, and records that cannot be read.

One run of two workers is compared with one command. A list that differs is named with its first difference.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgpack
import numpy as np
import polars as pl
import pytest

from model.version.registry import Registry
from stream.commands.broker import Broker
from stream.kafka.marks import marks
from stream.kafka.models_topic import read_models
from stream.settings import Settings
from tests import as_served, promoting
from tests.integration.test_worker import Application, create_topics
from tests.model import tiny
from tests.processes import each_committed, wait_until
from tests.verify.explained import explained

pytestmark = pytest.mark.isolation

PARTITIONS = 4
ROWS = 1200
SETTINGS = {"RECOMMEND": "1", "TOP_K": "7", "KEEP_SEGMENTS": "2", "KAFKA_SESSION_TIMEOUT_MS": "6000"}
WITHIN_S = 60.0
GONE, BACK = "user-2", "user-3"
"""Forgotten users. The second one comes back."""


@dataclass
class Served:
    """What a run left behind."""

    application: Application
    published: pl.DataFrame
    """As `as_served.published` has it."""
    standing: pl.DataFrame
    """Of these lists, those of no user who was forgotten later."""
    state: pl.DataFrame

    @property
    def kafka(self) -> dict[str, str]:
        return {"bootstrap.servers": self.application.bootstrap, "group.id": f"{self.application.name}.reader"}


def log_of() -> list[tuple[str, str, int]]:
    """Users of very different activity, items that no model knows, and times that are not in order."""
    drawn = np.random.default_rng(16)
    users = np.minimum(drawn.geometric(0.06, ROWS), 60)
    items = drawn.integers(1, tiny.V + 6, ROWS)
    times = 1_700_000_000_000 + 60_000 * np.arange(ROWS) + drawn.integers(0, 300_000, ROWS)
    return [(f"user-{user}", f"item-{item}", int(time)) for user, item, time in zip(users, items, times, strict=True)]


@pytest.fixture(scope="module")
def served(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two workers take a log. One of them is killed on the way. tiny@2 is promoted while interactions come, and then
    tiny@1 again. Each time the first records that the version meets are a null value and one that cannot be read.
    """
    application = Application(broker.bootstrap, tmp_path_factory.mktemp("served"), partitions=PARTITIONS)
    create_topics(application)
    for seed in (1, 2):
        tiny.add(application.models, seed=seed)
    registry = Registry(str(application.models))
    pieces = np.array_split(np.arange(ROWS), 6)
    log = log_of()

    def send(piece: int) -> None:
        application.produce([interaction(*log[at]) for at in pieces[piece]])

    def start(name: str) -> None:
        workers[name] = application.start_worker(WORKER=name, MODEL="tiny@1", METRICS_LISTEN="", **SETTINGS)

    def taken() -> None:
        wait_until(lambda: application.committed() >= application.sent, WITHIN_S, workers["w2"].told())

    workers = {}
    try:
        start("w1")
        start("w2")
        send(0)
        taken()
        send(1)
        workers["w1"].kill()
        start("w1")
        send(2)
        taken()
        promoting.promote(broker.bootstrap, application.name, registry.resolve("tiny@2"))
        for piece in (3, 4):
            send(piece)
            taken()
        wait_until(lambda: _both_serve(application, "tiny@2"), WITHIN_S, "both workers serve tiny@2")
        application.produce([(BACK.encode(), None), (b"user-1", b"hello")])
        send(5)
        taken()
        promoting.promote(broker.bootstrap, application.name, registry.resolve("tiny@1"), kind="rollback")
        wait_until(lambda: _both_serve(application, "tiny@1"), WITHIN_S, "both workers serve tiny@1 again")
        application.produce([(GONE.encode(), None), (b"user-1", b"hello")])
        application.produce([interaction(f"user-{user}", "item-1", 1_800_000_000_000) for user in range(3, 30)])
        taken()
        for worker in workers.values():
            assert worker.stop()[0] == 0, worker.told()
        published = as_served.published(each_committed(broker.bootstrap, application.recommendations))
        yield Served(application, published, _standing(application, published), application.export())
    finally:
        application.close()


def interaction(user: str, item: str, time: int) -> tuple[bytes, bytes]:
    return user.encode(), msgpack.packb({"item": item, "ts": time})


def _standing(application: Application, published: pl.DataFrame) -> pl.DataFrame:
    nulls = [
        ((message.key() or b"").decode(), message.offset())
        for message in application.read(application.interactions)
        if message.value() is None
    ]
    assert sorted(user for user, _ in nulls) == [GONE, BACK]
    forgotten = pl.DataFrame(nulls, {"user_id": pl.String, "forgotten": pl.Int64}, orient="row")
    return (
        published.join(forgotten, on="user_id", how="left")
        .filter(pl.col("forgotten").is_null() | (pl.col("offset") > pl.col("forgotten")))
        .drop("forgotten")
    )


def _both_serve(application: Application, reference: str) -> bool:
    workers = read_models({"bootstrap.servers": application.bootstrap}, application.name).workers
    return [workers[name].serves for name in ("w1", "w2")] == [reference, reference]


def test_a_replay_as_served_has_every_list_and_every_state_of_the_workers(served: Served, tmp_path: Path) -> None:
    application = served.application
    said = application.rec2pm(
        "replay", "--from-kafka", application.interactions, "--as-served", "--out", tmp_path, **SETTINGS
    )
    assert said.returncode == 0, said.stderr
    assert len(served.published) == application.sent - 4  # the null values, and what cannot be read
    assert set(served.published["model"]) == {"tiny@1", "tiny@2"}
    # What users did before they were forgotten is not replayed: the replay lacks the lists from before, and no others.
    gone = served.published.join(served.standing, on=["partition", "offset"], how="anti")
    assert set(gone["user_id"]) == {GONE, BACK}
    assert BACK in set(served.standing["user_id"])
    lists = pl.read_parquet(tmp_path / "served" / "recommendations.parquet")
    assert [*as_served.list_differences(served.standing, lists)] == []
    state = pl.read_parquet(tmp_path / "served" / "state.parquet")
    assert [*as_served.state_differences(served.state, state)] == []
    assert set(served.state["folds"]) > {0, 1, 2, 3}
    assert any(served.state["other_memories"].list.len())
    for partition in range(PARTITIONS):
        found = [mark.version for mark in marks(served.kafka, application.name, partition)]
        assert found == ["tiny@1", "tiny@2", "tiny@1"]


def test_lists_at_random_are_explained_as_they_were_published(served: Served) -> None:
    """Before and after the promotions, in the same memory and in a rebuilt one."""
    old = (pl.col("model") == "tiny@2") & (pl.col("folds") > 3)  # of users who had more segments than are kept
    lists = pl.concat([served.standing.filter(of).sample(6, seed=5) for of in (old, ~old)])
    settings = Settings.from_environ(served.application.environ(SETTINGS))
    versions, rebuilt = set(), 0
    for published, found, difference in explained(settings, lists.iter_rows(named=True)):
        assert difference is None, published
        versions.add(found.version)
        rebuilt += found.missing_segments > 0
    assert versions == {"tiny@1", "tiny@2"}
    assert rebuilt > 0
