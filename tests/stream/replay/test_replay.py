"""A whole replay: the same as one interaction after the other, in any number of processes, and after kills."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from model.log import open_log
from model.version.registry import Registry
from state.store import Store
from stream.commands.import_state.states import checked_states, opened
from stream.errors import ReplayUnfinished
from stream.interactions.pieces import ORIGIN, Origin
from stream.partition import Partition
from stream.replay import counted, finish, pool, run
from stream.replay.feed import Feed
from stream.replay.frames import Frames
from stream.replay.run import Contender, Options, Turn
from stream.replay.shard import Shard
from stream.replay.task import Task
from stream.state_rows import Facts
from tests.model import tiny

ROWS = 900


def log_of(rows: int = ROWS, seed: int = 0) -> pl.DataFrame:
    """Users of very different activity, some items that no model knows, and ties."""
    drawn = np.random.default_rng(seed)
    users = np.minimum(drawn.geometric(0.12, rows), 30)
    items = drawn.integers(1, tiny.V + 6, rows)
    return pl.DataFrame(
        {
            "user_id": [f"user-{user}" for user in users],
            "item_id": [f"item-{item}" for item in items],
            "timestamp": 1_700_000_000_000 + 500 * (np.arange(rows) // 2),
        }
    )


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    root = tmp_path_factory.mktemp("models")
    tiny.add(root, seed=1)
    tiny.add(root, seed=2)
    return Registry(root)


def options(**changed: Any) -> Options:
    usual = {"cadence": "interaction", "exclude": "kept", "top_k": 5, "keep_segments": 2, "keep_formats": 1}
    return Options(**{**usual, "partitions": 3, "chunk": 40, **changed})


def replayed(
    out: Path,
    registry: Registry,
    *,
    log: pl.DataFrame | None = None,
    runs: Any = pool.run_in_this_process,
    memory: bool = True,
    **changed: Any,
) -> run.Replayed:
    contenders = [Contender("tiny@1", (Turn(registry.resolve("tiny@1")),), memory)]
    frame = log_of() if log is None else log
    return run.replay(frame.lazy(), contenders, options(**changed), out, identity={}, heard=lambda *_: None, run=runs)


def files_of(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*.parquet"))
        if "work" not in path.parts
    }


def scored(out: Path) -> pl.DataFrame:
    table = pl.concat(
        [pl.read_parquet(out / "interactions.parquet"), pl.read_parquet(out / "tiny@1" / "scored.parquet")],
        how="horizontal",
    )
    assert len(table) == ROWS
    return table


@pytest.mark.parametrize("cadence", ["interaction", "fold", 5])
def test_a_rank_is_the_place_in_the_newest_list_before(tmp_path: Path, registry: Registry, cadence: Any) -> None:
    replayed(tmp_path, registry, cadence=cadence, top_k=100)
    lists = {
        (row["partition"], row["offset"]): row
        for row in pl.read_parquet(tmp_path / "tiny@1" / "recommendations.parquet").iter_rows(named=True)
    }
    newest: dict[str, dict[str, Any]] = {}
    kinds = set()
    for row in scored(tmp_path).iter_rows(named=True):
        shown = newest.get(row["user_id"])
        if shown is None:
            assert (row["rank"], row["known"]) == (None, None)
        else:
            items = shown["items"]
            assert row["rank"] == (items.index(row["item_id"]) + 1 if row["item_id"] in items else 0)
            assert row["known"] == (row["item_id"] in tiny.IDS)
            assert (row["source"], row["folds"], row["version"]) == (shown["source"], shown["folds"], "tiny@1")
            assert row["since_fold"] == shown["taken"] - tiny.L * shown["folds"]
        kinds.add((row["rank"] or 0) > 0)
        newest[row["user_id"]] = lists.get((row["partition"], row["offset"]), shown)
    assert kinds == {True, False}
    assert set(newest) == set(log_of()["user_id"])


def test_steps_of_any_size_remember_and_recommend_the_same(tmp_path: Path, registry: Registry) -> None:
    replayed(tmp_path / "one", registry, chunk=1)
    replayed(tmp_path / "many", registry, chunk=97)
    for name in ("recommendations", "state"):
        one, many = (pl.read_parquet(tmp_path / each / "tiny@1" / f"{name}.parquet") for each in ("one", "many"))
        numbers = "scores" if name == "recommendations" else "memory"
        assert one.drop(numbers).equals(many.drop(numbers))
        for mine, other in zip(one[numbers], many[numbers], strict=True):
            np.testing.assert_allclose(mine, other, atol=1e-5)
    assert set(pl.read_parquet(tmp_path / "one" / "tiny@1" / "state.parquet")["folds"]) > {0, 1, 2}


def test_two_processes_write_the_same_bytes_as_one(tmp_path: Path, registry: Registry) -> None:
    replayed(tmp_path / "one", registry)
    replayed(tmp_path / "two", registry, runs=lambda tasks, heard: pool.run_here(tasks, 2, heard))
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert len(files_of(tmp_path / "one")) == 5


def test_a_shuffled_file_and_what_comes_later_change_nothing(tmp_path: Path, registry: Registry) -> None:
    """Times differ: interactions of the same millisecond keep their order in the file."""
    log = log_of().with_columns(timestamp=1_700_000_000_000 + 500 * pl.int_range(ROWS, dtype=pl.Int64))
    replayed(tmp_path / "whole", registry, log=log)
    replayed(tmp_path / "shuffled", registry, log=log.sample(fraction=1, shuffle=True, seed=1))
    assert files_of(tmp_path / "shuffled") == files_of(tmp_path / "whole")
    half = ROWS // 2
    replayed(tmp_path / "half", registry, log=log[:half])
    lists, until = ("tiny@1", "recommendations.parquet"), pl.col("as_of") < log["timestamp"][half]
    half_of, all_of = (pl.read_parquet(tmp_path.joinpath(name, *lists)) for name in ("half", "whole"))
    before = all_of.filter(until)
    assert half_of.drop("scores").equals(before.drop("scores"))
    np.testing.assert_allclose(half_of["scores"].explode(), before["scores"].explode(), atol=1e-5)


class Killed(Exception):
    """Stands for SIGKILL: nothing is flushed, closed or removed."""


@pytest.mark.parametrize(
    ("at", "memory"),
    [*((at, True) for at in ("append", "write", "learn", "finish")), ("append", False), ("finish", False)],
)
def test_a_run_that_was_killed_goes_on_and_writes_the_same_bytes(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch, at: str, memory: bool
) -> None:
    replayed(tmp_path / "whole", registry, memory=memory)
    calls = iter(range(10_000))
    where = {
        "append": (Frames, "append"),
        "write": (Store, "write"),
        "learn": (Partition, "learn"),
        "finish": (finish, "_write_ranked"),
    }
    owner, name = where[at]
    real = getattr(owner, name)

    def killed(*given: Any) -> Any:
        if at != "finish" and next(calls) == 9:
            raise Killed
        if at == "finish" and next(calls) == 1:
            raise Killed
        return real(*given)

    monkeypatch.setattr(owner, name, killed)
    with pytest.raises(Killed):
        replayed(tmp_path / "killed", registry, memory=memory)
    monkeypatch.setattr(owner, name, real)
    replayed(tmp_path / "killed", registry, memory=memory)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_a_folder_with_another_replay_is_not_gone_on_with(tmp_path: Path, registry: Registry) -> None:
    replayed(tmp_path, registry)
    with pytest.raises(ReplayUnfinished, match="of another options"):
        replayed(tmp_path, registry, exclude="none")


def test_lists_of_the_newest_items_are_those_of_a_user_without_folds(tmp_path: Path, registry: Registry) -> None:
    """Until the first fold the memory is empty, so the two agree."""
    replayed(tmp_path / "with", registry)
    replayed(tmp_path / "without", registry, memory=False)
    tables = [pl.read_parquet(tmp_path / each / "tiny@1" / "recommendations.parquet") for each in ("with", "without")]
    first = [table.filter(pl.col("folds") == 0) for table in tables]
    assert first[0].drop("scores").equals(first[1].drop("scores"))
    assert not tables[0]["items"].equals(tables[1]["items"])
    assert tables[0].select("offset", "taken", "folds").equals(tables[1].select("offset", "taken", "folds"))
    assert not (tmp_path / "without" / "tiny@1" / "state.parquet").exists()


def test_a_shard_whose_store_lost_its_newest_writes_makes_them_again(tmp_path: Path, registry: Registry) -> None:
    """A kill of the machine's process keeps what RocksDB had flushed, which is older than the frames."""
    replayed(tmp_path / "whole", registry)
    taken: list[Task] = []

    def first_half(tasks: Sequence[Task], heard: pool.Heard) -> None:
        taken.extend(tasks)
        for task in tasks:
            shard = Shard.open(task)
            shard.run(heard)
            shard.close()
        raise Killed

    with pytest.raises(Killed):
        replayed(tmp_path / "lost", registry, runs=first_half)
    feed = Feed.read(Path(taken[0].shard), taken[0].partition)
    assert len(feed) > 100
    shutil.rmtree(Path(taken[0].out) / "state")  # flushed nothing at all
    replayed(tmp_path / "lost", registry)
    assert files_of(tmp_path / "lost") == files_of(tmp_path / "whole")


def test_versions_serve_one_after_the_other(tmp_path: Path, registry: Registry) -> None:
    """By time, and by the offsets of a partition's marks; a list names its version, and memories are rebuilt."""
    log = log_of()
    half = int(log["timestamp"][ROWS // 2])
    turns = (Turn(registry.resolve("tiny@1")), Turn(registry.resolve("tiny@2"), from_ms=half))
    marks = {1: (Turn(registry.resolve("tiny@2")), Turn(registry.resolve("tiny@1"), from_offset=17, promotion="p"))}
    run.replay(
        log.lazy(),
        [Contender("served", turns, True, marks)],
        options(),
        tmp_path,
        identity={},
        heard=lambda *_: None,
        run=pool.run_in_this_process,
    )
    lists = pl.read_parquet(tmp_path / "served" / "recommendations.parquet")
    for row in lists.iter_rows(named=True):
        first = row["offset"] < 17 if row["partition"] == 1 else row["as_of"] < half
        assert row["model"] == ("tiny@1" if first == (row["partition"] != 1) else "tiny@2")
    formats = pl.read_parquet(tmp_path / "served" / "state.parquet").filter(pl.col("folds") > 0)["memory_format"]
    assert formats.n_unique() == 2


def test_states_of_a_whole_topic_say_where_an_application_goes_on(tmp_path: Path, registry: Registry) -> None:
    """A part of it does not: it lacks interactions before the end of the topic."""
    history, out = tmp_path / "history", tmp_path / "out"
    history.mkdir()
    places = {"partition": pl.lit(0, pl.Int32), "offset": pl.int_range(ROWS, dtype=pl.Int64)}
    log_of().with_columns(**places).write_parquet(history / "00000.parquet")
    origin = Origin("clicks", "an id", {"0": (0, ROWS + 3), "1": (0, 0)}, ROWS, 0, {}, 0, 0, 0)
    (history / ORIGIN).write_bytes(msgspec.json.encode(origin))

    def chosen(users: float = 1.0, end: float | None = None) -> counted.Chosen:
        return counted.chosen(str(history), open_log(str(history)), users=users, seed=0, begin=None, end=end)

    assert chosen(users=0.5).origin is None
    assert chosen(end=0.5).origin is None
    run.replay(
        chosen().log,
        [Contender("tiny@1", (Turn(registry.resolve("tiny@1")),), True)],
        options(partitions=2),
        out,
        identity={},
        origin=chosen().origin,
        heard=lambda *_: None,
        run=pool.run_in_this_process,
    )

    path = out / "tiny@1" / "state.parquet"
    assert opened(path) == Facts(tiny.L, "clicks", "an id", {"0": ROWS + 3, "1": 0})
    found = checked_states(path, lambda row: row.partition, lambda done, of: None)
    assert (sum(found.users.values()), found.interactions) == (log_of()["user_id"].n_unique(), ROWS)
