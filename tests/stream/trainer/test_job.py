from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from stream.rows import Batch
from stream.trainer.job import Ended, Job, Jobs, Start, Trained
from stream.trainer.log import TrainingLog
from stream.trainer.points import Point
from tests.stream.trainer.test_log import Crash, crash_at


def batch(first: int, user: str, *, null: bool = False) -> Batch:
    made = Batch(first, first + 1)
    if null:
        made.forgotten, made.nulls = {user: first}, 1
    else:
        made.users, made.items, made.times, made.offsets = [user], [1], [1_700_000_000_000], [first]
    return made


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TrainingLog]:
    made = TrainingLog(tmp_path / "log")
    made.append(0, batch(0, "ann"))
    made.append(0, batch(1, "bob"))
    yield made
    made.close()


def job(log: TrainingLog, began_ms: int = 5) -> Job:
    return Job(
        id=f"trainer-{began_ms}",
        began_ms=began_ms,
        rows=log.rows,
        name=None,
        recipe=None,
        settings=("lr=0.1",),
        keep_format=True,
        promote=False,
        threads=1,
        forgotten=log.forgotten.users,
        until={"0": 2},
    )


def users(folder: Path) -> list[str]:
    return pl.read_parquet(folder / "*" / "*.parquet")["user_id"].to_list()


def test_a_training_learns_from_the_log_as_it_was(log: TrainingLog) -> None:
    jobs = Jobs(log)
    assert jobs.unfinished() is None
    jobs.begin(job(log))
    log.append(0, batch(2, "cem"))
    assert users(jobs.folder.data) == ["ann", "bob"]
    found = Jobs(log).unfinished()
    assert found is not None
    assert (found.id, found.rows, found.settings, found.until) == ("trainer-5", 2, ("lr=0.1",), {"0": 2})
    assert jobs.last is None


@pytest.mark.parametrize("noted", [Start("a@1", "x", None), Trained("a@2", "0", None), Ended("a@2", "done")])
def test_how_far_a_training_is_is_noted(log: TrainingLog, noted: Start | Trained | Ended) -> None:
    folder = Jobs(log).folder
    Jobs(log).begin(job(log))
    found = {Start: folder.start, Trained: folder.trained, Ended: folder.ended}[type(noted)]
    assert found() is None
    folder.note(noted)
    assert found() == noted
    Jobs(log).begin(job(log, 6))
    assert found() is None


@pytest.mark.parametrize("point", [Point.LINKED, Point.NOTED])
def test_a_trainer_that_dies_as_a_training_begins_has_all_of_it_or_nothing(log: TrainingLog, point: Point) -> None:
    with pytest.raises(Crash):
        Jobs(log, crash_at(point, 0)).begin(job(log))
    again = Jobs(log)
    assert (again.unfinished() is None) is (point is Point.LINKED)
    again.begin(job(log, 7))
    assert again.unfinished() is not None
    assert users(again.folder.data) == ["ann", "bob"]


def test_a_training_that_has_ended_leaves_when_it_began_and_up_to_where(log: TrainingLog) -> None:
    jobs = Jobs(log)
    jobs.begin(job(log))
    with pytest.raises(Crash):
        Jobs(log, crash_at(Point.FINISHED, 0)).finish(job(log))
    assert jobs.unfinished() is None
    assert not jobs.folder.folder.exists()
    last = jobs.last
    assert last is not None
    assert (last.began_ms, last.until) == (5, {"0": 2})


def test_a_training_is_given_up_once_a_user_of_it_was_forgotten(log: TrainingLog) -> None:
    jobs = Jobs(log)
    jobs.begin(job(log))
    log.append(0, batch(2, "cem"))
    assert jobs.unfinished() is not None
    log.append(0, batch(3, "ann", null=True))
    assert jobs.unfinished() is None
    assert not jobs.folder.folder.exists()


def test_a_version_that_is_written_is_not_given_up(log: TrainingLog) -> None:
    jobs = Jobs(log)
    jobs.begin(job(log))
    jobs.folder.note(Trained("rec2pm@1", "0", None))
    log.append(0, batch(2, "ann", null=True))
    assert jobs.unfinished() is not None
