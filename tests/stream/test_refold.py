"""The background: when it works, how much at a time, and when a partition is done."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from model.errors import ModelFailed
from state.codec import INPUT, ONE_FORMAT, POSITION, PREPARED, read_number, read_one_format, user_of
from stream.fault_points import Point
from stream.ports import Outgoing
from stream.recommender import Floats, Ints, Recommender
from stream.refold import MOST
from stream.worker import Worker
from tests.fakes import FakeFolded, FakeLink, FakeModel, FakeRecord, said, worker_on

SEGMENT = 2
USERS = 100


class Other(FakeModel):
    reference, memory_format = "other@1", "other/1"


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def log() -> list[FakeRecord]:
    """A segment of each user."""
    return [FakeRecord(b"u%d" % (at // SEGMENT), said(at % 7, at), 0, at) for at in range(USERS * SEGMENT)]


class Swapped:
    """A worker in whose partition every user has a memory in another format than that of its model."""

    def __init__(self, folder: Path, per_s: int, model: FakeModel | None = None, link: FakeLink | None = None) -> None:
        self.clock, self.link = Clock(), link or FakeLink(log(), [])
        self.worker: Worker = worker_on(
            self.link, folder, FakeModel(SEGMENT), cadence="fold", refold_per_s=per_s, clock=self.clock
        )
        self.worker.turn()
        self.serve(model or Other(SEGMENT))
        self.before = len(self.link.published)

    def serve(self, model: FakeModel) -> None:
        self.worker.step = replace(self.worker.step, recommender=Recommender(model))

    def turn(self, seconds: float = 0.0) -> None:
        self.clock.now += seconds
        self.worker.turn()

    def published(self) -> list[Outgoing]:
        return self.link.published[self.before :]

    def prepared(self) -> int:
        return sum(user_of(key)[1] == PREPARED for key in self.link.state(0))

    def one_format(self) -> str | None:
        value = self.link.state(0).get(ONE_FORMAT)
        return None if value is None else read_one_format(value)


@pytest.fixture
def swapped(tmp_path: Path) -> Iterator[Swapped]:
    made = Swapped(tmp_path, per_s=50)
    yield made
    made.worker.partitions.close()


def test_it_rebuilds_at_most_its_rate_in_small_transactions_that_commit_the_offset(swapped: Swapped) -> None:
    """50 a second are 5 in a tenth of a second."""
    for _ in range(10):
        swapped.turn()
    assert swapped.prepared() == 0
    for _ in range(1000):
        swapped.turn(0.001)
    assert 45 <= swapped.prepared() <= 50
    swapped.turn(1000.0)
    for _ in range(10):
        swapped.turn()
    assert swapped.prepared() <= 60, "time that went by unused is not made up for"
    for outgoing in swapped.published():
        assert outgoing.next_offsets == {0: USERS * SEGMENT}
        told = dict(outgoing.changes[0])
        assert read_number(told[POSITION] or b"") == USERS * SEGMENT
        assert sum(user_of(key)[1] == PREPARED for key in told) <= 5


@pytest.mark.parametrize("per_s", [100_000, 1_000])
def test_a_transaction_never_has_more_users_than_steps_should_wait_for(tmp_path: Path, per_s: int) -> None:
    swapped = Swapped(tmp_path, per_s)
    swapped.turn(10.0)
    assert swapped.prepared() == MOST
    swapped.worker.partitions.close()


def test_when_every_user_has_a_memory_the_partition_says_so_and_nobody_looks_again(
    swapped: Swapped, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert swapped.one_format() == "fake/1", "the first step of a partition says it"
    for _ in range(50):
        swapped.turn(0.1)
    assert (swapped.prepared(), swapped.one_format()) == (USERS, "other/1")
    counts = swapped.worker.counts
    assert (counts.refolded, counts.rebuilt, counts.refold_looked, counts.rebuilt_from_part) == (USERS, USERS, USERS, 0)
    assert dict(swapped.worker.refold.done()) == {0: True}
    assert "refold begins partition=0 memory_format=other/1" in caplog.text
    assert f"refold ends partition=0 memory_format=other/1 users={USERS} rebuilt={USERS} failed=0" in caplog.text
    quiet = len(swapped.link.published)
    caplog.clear()
    for _ in range(20):
        swapped.turn(0.1)
    assert (len(swapped.link.published), caplog.text) == (quiet, "")
    swapped.worker.partitions.close()
    again = worker_on(swapped.link, tmp_path, Other(SEGMENT), refold_per_s=50, clock=swapped.clock)
    for _ in range(20):
        swapped.clock.now += 0.1
        again.turn()
    assert len(swapped.link.published) == quiet
    assert "refold" not in caplog.text
    again.partitions.close()


def test_a_step_in_another_format_takes_back_that_every_user_has_a_memory(swapped: Swapped) -> None:
    for _ in range(50):
        swapped.turn(0.1)
    swapped.serve(FakeModel(SEGMENT))
    swapped.link.records.append(FakeRecord(b"u1", said(1, 1), 0, USERS * SEGMENT))
    swapped.turn()
    assert swapped.one_format() is None
    for _ in range(50):
        swapped.turn(0.1)
    assert (swapped.one_format(), swapped.worker.counts.refolded) == ("fake/1", USERS), "they all have it already"


def test_it_is_off_at_0(tmp_path: Path) -> None:
    swapped = Swapped(tmp_path, per_s=0)
    for _ in range(20):
        swapped.turn(10.0)
    assert (swapped.published(), dict(swapped.worker.refold.done())) == ([], {})
    swapped.worker.partitions.close()


def test_what_is_aborted_has_no_effect_and_comes_again(swapped: Swapped) -> None:
    swapped.link.refusals = 3
    for _ in range(100):
        swapped.turn(0.1)
    assert swapped.worker.counts.aborted == 3
    assert (swapped.prepared(), swapped.worker.counts.refolded, swapped.one_format()) == (USERS, USERS, "other/1")


class Slow(FakeLink):
    """Records come late: as after an abort, when the client fetches them again."""

    silent = False

    def poll(self, limit: int, wait_s: float) -> Sequence[FakeRecord]:
        return [] if self.silent else super().poll(limit, wait_s)


def test_it_waits_after_a_step_was_aborted(tmp_path: Path) -> None:
    swapped = Swapped(tmp_path, per_s=50, link=Slow(log(), []))
    assert isinstance(swapped.link, Slow)
    swapped.link.records.append(FakeRecord(b"u1", said(1, 1), 0, USERS * SEGMENT))
    swapped.link.refusals = 1
    swapped.turn()
    assert swapped.worker.counts.aborted == 1
    swapped.link.silent = True
    for _ in range(5):
        swapped.turn(10.0)
    assert swapped.worker.partitions.running() == [0]
    assert swapped.published() == []
    swapped.link.silent = False
    swapped.turn(10.0)
    assert len(swapped.published()) == 2, "the step, and then the background"
    swapped.worker.partitions.close()


def test_it_waits_until_a_version_has_proved_itself(tmp_path: Path) -> None:
    swapped = Swapped(tmp_path, per_s=50)
    serving = swapped.worker.serving
    serving.offer(serving.serves._replace(recommender=Recommender(Other(SEGMENT), "01J")))
    for _ in range(5):
        swapped.turn(1.0)
    assert swapped.published() == []
    swapped.link.records += [FakeRecord(b"new", said(1, 1), 0, USERS * SEGMENT + at) for at in range(SEGMENT)]
    swapped.turn(1.0)
    swapped.turn(1.0)
    assert swapped.prepared() > 0
    swapped.worker.partitions.close()


class FailsOnItem5(Other):
    def fold(self, memory: Floats, rows: Ints, times: Ints | None = None) -> FakeFolded:
        if (rows == 6).any():
            raise ModelFailed("item 5")
        return super().fold(memory, rows, times)


def test_users_on_whom_the_model_fails_are_left_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    swapped = Swapped(tmp_path, 1_000, FailsOnItem5(SEGMENT))
    for _ in range(50):
        swapped.turn(0.1)
    failing = sum(5 in (2 * at % 7, (2 * at + 1) % 7) for at in range(USERS))
    assert 0 < failing < USERS
    assert (swapped.prepared(), swapped.one_format()) == (USERS - failing, "other/1")
    assert caplog.text.count("model failed on a memory in the background partition=0: item 5") == failing
    swapped.worker.partitions.close()


def test_a_partition_where_nothing_is_stored_is_left_alone(tmp_path: Path) -> None:
    clock, link = Clock(), FakeLink([], [])
    worker = worker_on(link, tmp_path, Other(SEGMENT), refold_per_s=50, clock=clock)
    for _ in range(5):
        clock.now += 1.0
        worker.turn()
    assert link.published == []
    worker.partitions.close()


def test_an_offset_that_an_operator_committed_outlives_a_restart(tmp_path: Path) -> None:
    """The transaction of the background takes the place of the operator's offset, so it must store that position."""
    swapped = Swapped(tmp_path, per_s=50)
    swapped.worker.partitions.close()
    swapped.link.by_hand[0] = 7
    worker = worker_on(swapped.link, tmp_path, Other(SEGMENT), refold_per_s=50, clock=swapped.clock)
    swapped.link._next[0] = len(swapped.link.records)  # no record comes before the background
    swapped.clock.now += 1.0
    worker.turn()
    worker.partitions.close()
    assert read_number(swapped.link.state(0)[POSITION]) == 7
    assert INPUT in swapped.link.state(0)


def test_the_fault_point_comes_after_the_publication_and_before_the_store(tmp_path: Path) -> None:
    swapped = Swapped(tmp_path, per_s=50)
    reached: list[tuple[Point, int, int]] = []

    def at(point: Point) -> None:
        store = swapped.worker.partitions[0].store
        stored = sum(user_of(key)[1] == PREPARED for key, _ in store.records())
        reached.append((point, swapped.prepared(), stored))

    swapped.worker._at = at
    swapped.turn(1.0)
    assert (Point.REFOLDED, 5, 0) in reached
    swapped.worker.partitions.close()
