"""What the process of a training does, without Kafka: nothing is promoted, so there is no champion."""

from pathlib import Path

import pytest

from model.version.registry import Registry
from stream.promotion.record import Models
from stream.rows import Batch
from stream.settings import Settings
from stream.trainer import run_job
from stream.trainer.job import Ended, Job, Jobs
from stream.trainer.log import TrainingLog
from stream.trainer.points import Point, passing
from tests.model.quick import LOG, SMALL
from tests.stream.trainer.test_log import Crash, crash_at


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingLog:
    monkeypatch.setattr(run_job, "read_models", lambda *_: Models())
    made = TrainingLog(tmp_path / "log")
    made.append(0, _batch(0, len(LOG) - 30))
    return made


def _batch(first: int, until: int) -> Batch:
    rows = LOG[first:until]
    users, items, times = (rows[name].to_list() for name in ("user_id", "item_id", "timestamp"))
    return Batch(first, until, users, items, times, list(range(first, until)))


def _begin(log: TrainingLog, began_ms: int, *settings: str) -> Jobs:
    jobs = Jobs(log)
    jobs.begin(
        Job(
            id=f"trainer-{began_ms}",
            began_ms=began_ms,
            rows=log.rows,
            name=None,
            recipe=None,
            settings=(*SMALL, "max_epochs=1", *settings),
            keep_format=True,
            promote=False,
            threads=1,
            forgotten=4,
            until={"0": 7},
        )
    )
    return jobs


def _run(jobs: Jobs, tmp_path: Path, at: run_job.At = passing) -> Ended | None:
    settings = Settings.from_environ({"REC2PM_MODELS": str(tmp_path / "models")})
    run_job.run(jobs.folder, settings, {}, now_ms=lambda: 1, at=at)
    return jobs.folder.ended()


def test_each_training_starts_from_the_version_before_and_is_written_once(log: TrainingLog, tmp_path: Path) -> None:
    jobs = _begin(log, 1)
    with pytest.raises(Crash):
        _run(jobs, tmp_path, crash_at(Point.ADDED, 0))
    ended = _run(jobs, tmp_path)
    assert ended == Ended("rec2pm@1", "wrote rec2pm@1; `rec2pm models promote rec2pm@1` promotes it")
    registry = Registry(tmp_path / "models")
    (first,) = registry.versions("rec2pm")
    manifest = first.manifest()
    assert manifest.forgotten is not None
    assert (manifest.forgotten.users, manifest.forgotten.until) == (4, {"0": 7})
    jobs.finish(jobs.folder.job() or pytest.fail("the training is noted"))

    log.append(0, _batch(len(LOG) - 30, len(LOG)))
    _run(_begin(log, 2), tmp_path)
    second = registry.versions("rec2pm")[-1].manifest()
    assert (second.version, second.config["from"], second.config["keep_memory_format"]) == ("2", "rec2pm@1", True)
    assert second.training is not None
    assert manifest.training is not None
    assert second.training.rows > manifest.training.rows
    assert (manifest.training.log, second.training.log) == ("trainer-1", "trainer-2")
    log.close()


def test_a_log_that_nothing_can_be_learned_from_ends_the_training_and_says_why(
    log: TrainingLog, tmp_path: Path
) -> None:
    ended = _run(_begin(log, 1, "segment_length=5000"), tmp_path)
    assert ended is not None
    assert ended.version is None
    assert "no version: " in ended.words
    assert "no user has more than 5000 interactions" in ended.words
    assert Registry(tmp_path / "models").versions("rec2pm") == []
    log.close()
