"""The line that a worker logs every minute."""

import logging
from pathlib import Path

import pytest

from stream.worker import FLUSH_EVERY_S
from tests.fakes import FakeLink, FakeModel, FakeRecord, said, worker_on


def test_once_a_minute_a_worker_says_its_rate_its_lag_and_its_partitions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    link = FakeLink([FakeRecord(b"ann", said(item, item), 0, item) for item in range(120)], [90])
    worker = worker_on(link, tmp_path, FakeModel(4), clock=lambda: now)
    caplog.set_level(logging.INFO)

    def lines() -> list[str]:
        return [line for line in caplog.messages if line.startswith("progress ")]

    worker.turn()
    assert lines() == []
    now = FLUSH_EVERY_S / 2
    worker.turn()
    assert lines() == []
    now = FLUSH_EVERY_S
    worker.turn()
    assert lines() == ["progress records_per_s=2.0 lists_per_s=0.0 lag=0 partitions=1 running=1"]
    now = 2 * FLUSH_EVERY_S
    worker.turn()
    assert lines()[1:] == ["progress records_per_s=0.0 lists_per_s=0.0 lag=0 partitions=1 running=1"]
    worker.partitions.close()


def test_the_lag_is_what_is_left_up_to_the_ends_and_unknown_while_one_is_not_known(tmp_path: Path) -> None:
    link = FakeLink([FakeRecord(b"ann", said(item, item), 0, item) for item in range(50)], [20])
    worker = worker_on(link, tmp_path, FakeModel(4), clock=lambda: 0.0, partitions=(0, 1))
    worker.turn()

    def lag(ends: dict[int, int]) -> str:
        line = worker._progress.next(worker.counts, worker.partitions.all(), ends)
        return line.partition("lag=")[2].partition(" ")[0]

    assert lag({0: 50, 1: 0}) == "30"
    assert lag({0: 50}) == "unknown"
    assert lag({0: 10, 1: 0}) == "0", "statistics of a moment ago"
    worker.partitions.assigned([2])
    assert lag({0: 50, 1: 0}) == "unknown", "a partition that is not restored yet"
    worker.partitions.close()
