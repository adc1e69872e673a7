"""A log in the order of time, divided by user: compared with one that is sorted in memory."""

from collections import Counter, defaultdict
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.kafka.partitioner import partition_of
from stream.replay import ordered
from stream.replay.feed import Feed, borders

happened = st.lists(
    st.tuples(st.sampled_from(["ann", "bob", "é", "7"]), st.sampled_from(["1", "01", "a"]), st.integers(0, 9)),
    min_size=1,
    max_size=60,
)


def prepared(folder: Path, frame: pl.DataFrame, partitions: int = 3) -> tuple[list[Path], pl.DataFrame]:
    shards = ordered.prepare(frame.lazy(), folder / "log", partitions, 5, lambda *_: None)
    return shards, pl.concat([pl.read_parquet(path) for path in shards])


def frame_of(happened: list[tuple[str, str, int]]) -> pl.DataFrame:
    return pl.DataFrame(happened, {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}, orient="row")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches and files so small that a short log has several."""
    monkeypatch.setattr(ordered, "_BATCH", 7)
    monkeypatch.setattr(ordered, "_BUCKET", 9)


@settings(max_examples=40, deadline=None)
@given(happened)
def test_every_interaction_is_where_produce_would_have_put_it(
    tmp_path_factory: pytest.TempPathFactory, happened: list[tuple[str, str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("ordered")
    shards, found = prepared(folder, frame_of(happened))
    offsets: Counter[int] = Counter()
    taken: Counter[str] = Counter()
    had: Counter[tuple[str, str]] = Counter()
    wanted = defaultdict(list)
    for row, (user, item, time) in enumerate(sorted(happened, key=lambda each: each[2])):
        partition = partition_of(user.encode(), 3)
        wanted[partition].append(
            (partition, offsets[partition], user, item, time, taken[user], had[user, item], time >= 5, row)
        )
        offsets[partition] += 1
        taken[user] += 1
        had[user, item] += 1
    assert found.rows() == [each for _, rows in sorted(wanted.items()) for each in rows]
    assert [int(path.stem) for path in shards] == sorted(wanted)
    in_time = pl.scan_parquet(folder / "log" / "ordered" / "*.parquet").collect()
    assert in_time["row"].to_list() == list(range(len(happened)))
    assert in_time["timestamp"].is_sorted()


@pytest.mark.parametrize(("rows", "parts"), [(1, 16), (8_000_000, 16), (8_000_001, 17), (100_000_000, 200)])
def test_a_long_log_has_more_parts_so_that_none_is_long(rows: int, parts: int) -> None:
    assert ordered.usual_partitions(rows) == parts


def test_a_log_from_kafka_keeps_its_places_whatever_its_times_say(tmp_path: Path) -> None:
    log = pl.DataFrame(
        {
            "user_id": ["ann", "bob", "ann"],
            "item_id": ["1", "2", "3"],
            "timestamp": [30, 20, 10],
            "partition": [5, 2, 5],
            "offset": [100, 7, 104],
        }
    )
    _, found = prepared(tmp_path, log)
    assert found.select("partition", "offset", "user_id", "taken", "row").rows() == [
        (2, 7, "bob", 0, 1),
        (5, 100, "ann", 0, 2),
        (5, 104, "ann", 1, 0),
    ]


@settings(max_examples=40, deadline=None)
@given(happened, st.integers(1, 4), st.integers(1, 9))
def test_the_next_interactions_of_a_user_are_found(
    tmp_path_factory: pytest.TempPathFactory, happened: list[tuple[str, str, int]], reach: int, chunk: int
) -> None:
    shards, found = prepared(tmp_path_factory.mktemp("feed"), frame_of(happened), partitions=1)
    feed = Feed.read(shards[0], 0)
    users = found["user_id"].to_list()
    owners, targets = feed.following(feed.offsets.tolist(), reach)
    wanted = [
        (at, other)
        for at, user in enumerate(users)
        for other in [later for later in range(at + 1, len(users)) if users[later] == user][:reach]
    ]
    assert list(zip(owners.tolist(), targets.tolist(), strict=True)) == wanted
    cuts = list(borders(feed, chunk, [len(users) // 2]))
    assert [at for start, end in cuts for at in range(start, end)] == list(range(len(users)))
    polled = feed.polled(0, len(users), frozenset([1]))
    assert polled.records == len(polled.items) == len(users) - (1 in feed.offsets)
    assert sorted(at for flat in polled.runs[0].values() for at in flat[2::3]) == [
        at for at in range(len(users)) if at != 1
    ]
