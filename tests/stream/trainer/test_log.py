"""The training log against the topic that it stands for, with a crash at every point where a trainer may die."""

from collections.abc import Sequence
from pathlib import Path

import msgpack
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.log import open_log
from model.times import TimeRule
from state.interaction import item_key
from stream.decode import decode
from stream.errors import TrainingLogUnfit
from stream.event import EventReader
from stream.keys import KeyFormat
from stream.rows import Batch, Reader
from stream.trainer import log as module
from stream.trainer.log import Topic, TrainingLog
from stream.trainer.points import At, Point, passing
from tests.fakes import FakeRecord

NO_EVENT = b"no event"
START_MS = 1_700_000_000_000
USERS = ["ann", "bob", "7", "é"]
ITEMS: Sequence[int | str] = [1, 2, 3, "4", "film", 2**63]


class Crash(Exception):
    """The process is gone."""


def crash_at(point: Point, nth: int) -> At:
    left = [nth]

    def at(reached: Point) -> None:
        if reached is point:
            left[0] -= 1
            if left[0] < 0:
                raise Crash(point)

    return at


def interaction(user: str, item: int | str, ms: int | None, partition: int = 0, offset: int = 0) -> FakeRecord:
    value = {"item": item} if ms is None else {"item": item, "ts": ms}
    return FakeRecord(user.encode(), msgpack.packb(value), partition, offset, START_MS + 5)


def topic(partitions: Sequence[Sequence[FakeRecord]]) -> list[list[FakeRecord]]:
    """Records with their partitions, and with offsets that leave some out, as markers of transactions do."""
    return [
        [
            FakeRecord(each._key, each._value, number, 3 + 2 * at + at // 3, each._timestamp)
            for at, each in enumerate(records)
        ]
        for number, records in enumerate(partitions)
    ]


def reader() -> Reader:
    return Reader(EventReader(), KeyFormat(), TimeRule())


def collect(log: TrainingLog, records: Sequence[Sequence[FakeRecord]], batch: int) -> None:
    """Read every partition to its end, in batches, from where the log says."""
    for number, partition in enumerate(records):
        unread = [each for each in partition if each.offset() >= (log.next(number) or 0)]
        for at in range(0, len(unread), batch):
            first = log.next(number) or 0
            batches = {number: Batch(first, first)}
            reader().read(unread[at : at + batch], batches)
            log.append(number, batches[number])


def kept(records: Sequence[Sequence[FakeRecord]]) -> list[tuple[int, str, str, int, int]]:
    """What the log must hold: partition, user, item, time and offset."""
    found = []
    for number, partition in enumerate(records):
        for record in partition:
            user = (record.key() or b"").decode()
            if record.value() is None:
                found = [each for each in found if each[:2] != (number, user)]
                continue
            if record.value() != NO_EVENT:
                event = msgpack.unpackb(record.value() or b"")
                when = event.get("ts", record.timestamp()[1])
                found.append((number, user, str(event["item"]), when, record.offset()))
    return found


def rows(folder: Path) -> list[tuple[int, str, str, int, int]]:
    found = []
    for path in sorted(folder.glob("*/*.parquet"), key=lambda path: (int(path.parent.name), path.name)):
        frame = pl.read_parquet(path).with_columns(pl.col("timestamp").dt.timestamp("ms"))
        found += [(int(path.parent.name), user, str(item), ms, at) for user, item, ms, at in frame.iter_rows()]
    return found


event = st.one_of(
    st.builds(interaction, st.sampled_from(USERS), st.sampled_from(ITEMS), st.integers(START_MS, START_MS + 9)),
    st.builds(interaction, st.sampled_from(USERS), st.sampled_from(ITEMS), st.none()),
    st.sampled_from(USERS).map(lambda user: FakeRecord(user.encode(), None)),
    st.just(FakeRecord(b"ann", NO_EVENT)),
)


@given(
    partitions=st.lists(st.lists(event, max_size=25), min_size=1, max_size=3),
    batch=st.integers(1, 9),
    full=st.integers(1, 12),
    point=st.sampled_from([Point.REMOVED_PARTLY, Point.BESIDE, Point.WRITTEN]),
    nth=st.integers(0, 6),
)
@settings(max_examples=150, deadline=None)
def test_the_log_has_each_interaction_once_and_nobody_who_was_forgotten_wherever_the_trainer_dies(
    tmp_path_factory: pytest.TempPathFactory,
    partitions: list[list[FakeRecord]],
    batch: int,
    full: int,
    point: Point,
    nth: int,
) -> None:
    folder, records = tmp_path_factory.mktemp("log"), topic(partitions)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "FULL", full)
        log = TrainingLog(folder, crash_at(point, nth))
        try:
            collect(log, records, batch)
        except Crash:
            log.close()
            log = TrainingLog(folder)
            collect(log, records, batch + 1)
        log.close()
    assert rows(folder) == kept(records)
    again = TrainingLog(folder)
    assert again.rows == len(kept(records))
    assert again.forgotten.users == sum(record.value() is None for partition in records for record in partition)
    assert again.forgotten.until == {
        number: partition[-1].offset() + 1 for number, partition in enumerate(records) if partition
    }
    again.close()
    assert [path for path in folder.rglob("*") if path.name.endswith(".new")] == []


@given(st.lists(event, max_size=40))
@settings(max_examples=50, deadline=None)
def test_rows_are_what_a_worker_takes_for_interactions(events: list[FakeRecord]) -> None:
    (records,) = topic([events])
    polled = decode(records, "in", {0: 0}, {}, EventReader(), KeyFormat())
    runs = [
        (user, *each)
        for user, flat in polled.runs.get(0, {}).items()
        for each in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    ]
    superseded = [
        (run.user, *each) for run in polled.superseded for each in zip(run.items, run.times, run.offsets, strict=True)
    ]
    made, batches = reader(), {0: Batch(0, 0)}
    made.read(records, batches)
    batch = batches[0]
    ours = zip(batch.users, map(item_key, batch.items), batch.times, batch.offsets, strict=True)
    assert sorted(runs + superseded) == sorted((user.encode(), *rest) for user, *rest in ours)
    assert made.counts.refused == len(polled.dead)
    assert made.counts.forgotten == polled.forgotten
    assert made.counts.records == len(records)
    assert bool(made.why_refused) == bool(polled.dead)
    assert batch.next == polled.next_offsets.get(0, 0)


def test_a_record_that_comes_a_second_time_counts_once() -> None:
    made, batches = reader(), {0: Batch(0, 0)}
    records = [interaction("ann", 1, START_MS, offset=at) for at in (0, 1, 1, 0, 2)]
    made.read(records, batches)
    assert batches[0].offsets == [0, 1, 2]
    assert made.counts.repeated == 2


def test_an_interaction_without_any_plausible_time_is_counted_and_no_log_has_it() -> None:
    made, batches = reader(), {0: Batch(0, 0)}
    made.read([FakeRecord(b"ann", msgpack.packb({"item": 1}), 0, 0, -1)], batches)
    assert (len(batches[0]), made.counts.without_time, batches[0].next) == (0, 1, 1)


def test_the_log_is_one_that_training_reads(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    log = TrainingLog(folder)
    log.belongs_to(Topic("shop", "plays", "id"))
    records = topic(
        [
            [interaction("ann", 1, START_MS), interaction("bob", 2, START_MS + 1)],
            [FakeRecord(b"ann", None)],
            [interaction("7", 3, START_MS + 2)],
        ]
    )
    collect(log, records, 10)
    found = open_log(folder)
    frame = found.interactions.collect()
    assert frame.rows() == [("ann", 1, START_MS), ("bob", 2, START_MS + 1), ("7", 3, START_MS + 2)]
    assert frame.schema["item_id"] == pl.Int64
    assert found.notes == ()
    # An item that is text makes all of them text: 1 and "1" are the same item.
    collect(log, [*records[:2], [*records[2], interaction("7", "film", START_MS, 2, 99)]], 10)
    assert open_log(folder).interactions.collect()["item_id"].to_list() == ["1", "2", "3", "film"]
    log.close()
    assert oct(folder.stat().st_mode)[-3:] == "700"


def test_what_is_set_aside_stays_as_it_was(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log")
    records = topic([[interaction("ann", 1, START_MS), interaction("bob", 2, START_MS)]])
    collect(log, records, 10)
    log.link(tmp_path / "aside")
    collect(log, topic([[*records[0], FakeRecord(b"ann", None), interaction("bob", 3, START_MS)]]), 10)
    assert [row[1] for row in rows(tmp_path / "aside")] == ["ann", "bob"]
    assert [row[1] for row in rows(tmp_path / "log")] == ["bob", "bob"]
    log.close()


def test_rows_since_offsets_are_counted(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "FULL", 4)
        log = TrainingLog(tmp_path / "log")
        records = topic([[interaction("ann", 1, START_MS)] * 11, [interaction("bob", 1, START_MS)] * 3])
        collect(log, records, 3)
    every = rows(tmp_path / "log")
    for start in range(30):
        assert log.rows_since({0: start}) == sum(partition == 1 or at >= start for partition, *_, at in every)
    log.close()


def test_only_one_process_has_a_log(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path)
    with pytest.raises(TrainingLogUnfit, match="another trainer on this machine has this log"):
        TrainingLog(tmp_path)
    log.close()
    TrainingLog(tmp_path, passing).close()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Topic("shop", "views", "id"), "is the training log of plays \\(shop\\), not of views \\(shop\\)"),
        (Topic("other", "plays", "id"), "is the training log of plays \\(shop\\), not of plays \\(other\\)"),
        (Topic("shop", "plays", "new"), "the topic was deleted and created again"),
    ],
)
def test_a_log_of_another_topic_is_refused(tmp_path: Path, other: Topic, message: str) -> None:
    log = TrainingLog(tmp_path)
    log.belongs_to(Topic("shop", "plays", "id"))
    log.belongs_to(Topic("shop", "plays", ""))
    with pytest.raises(TrainingLogUnfit, match=message):
        log.belongs_to(other)
    log.close()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("history.parquet", b"PAR1", "history.parquet is not of a trainer"),
        ("0/part.parquet", b"", "part.parquet is not of a trainer"),
        ("0/00000000000000000000.parquet", b"PAR1", "is damaged, or no trainer wrote it"),
    ],
)
def test_files_that_no_trainer_wrote_are_refused_and_left_alone(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainingLogUnfit, match=message):
        TrainingLog(tmp_path)
    assert (tmp_path / name).read_bytes() == content
