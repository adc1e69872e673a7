"""The suite itself: a short run with the most telling faults, and the parts of it that need no broker."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

import pytest

from stream.fault_points import Point
from tests.crash import damage, disk, plan, source
from tests.crash.driver import Options, run
from tests.crash.faults import FAULTS
from tests.crash.faults.common import Fault
from tests.crash.oracle import user_of
from tests.crash.plan import Injected, Injector, Order
from tests.crash.progress import Progress, Sample
from tests.crash.report import report
from tests.crash.said import said
from tests.crash.schedule import Schedule
from tests.processes import ROOT

TELLING = (
    "SIGKILL at offsets-sent",
    "SIGKILL at committed",
    "SIGTERM",
    "SIGSTOP past the session at computed",
    "connections reset",
    "state lost",
    "broker SIGKILL",
    "hold: a late EndTxn, then SIGKILL",
    "input deleted after it was read",
    "promotion to another memory format",
)
FAULTS_S = 50.0


@pytest.mark.isolation
@pytest.mark.skipif(
    not os.environ.get("KAFKA_HOME"), reason="a broker to kill: set KAFKA_HOME to an unpacked Kafka 4 (needs Java 17)"
)
def test_nothing_is_lost_or_doubled_while_the_most_telling_faults_happen(tmp_path: Path) -> None:
    chosen = [fault for fault in FAULTS if fault.name in TELLING]
    assert len(chosen) == len(TELLING)
    outcome = run(Options(seconds=FAULTS_S, seed=1, faults=chosen, folder=tmp_path, rate=300), report=print)
    print(report(outcome))
    assert outcome.holds
    assert outcome.verdict is not None
    assert outcome.verdict.refused > 0
    assert sum(each.reached for each in outcome.injections) >= 3


def test_every_point_is_aimed_at() -> None:
    names = {fault.name for fault in FAULTS}
    assert {f"SIGKILL at {point}" for point in Point} <= names
    assert len(names) == len(FAULTS)


def test_every_fault_comes_before_any_comes_again_and_a_seed_is_an_order() -> None:
    def drawn(seed: int) -> list[str]:
        schedule = Schedule(FAULTS, random.Random(seed))
        return [fault.name for _ in range(2 * len(FAULTS)) if (fault := schedule.next(1000.0))]

    assert drawn(1) == drawn(1) != drawn(2)
    for half in (slice(0, len(FAULTS)), slice(len(FAULTS), None)):
        assert set(drawn(3)[half]) == {fault.name for fault in FAULTS}


def test_what_does_not_fit_into_the_rest_of_a_run_waits() -> None:
    def never(world: object) -> float:
        raise AssertionError

    schedule = Schedule([Fault("long", never, 50), Fault("short", never, 5)], random.Random(0))
    drawn = [schedule.next(left) for left in (10.0, 10.0, 60.0, 1.0)]
    assert [fault and fault.name for fault in drawn] == ["short", "short", "long", None]


def test_orders_are_carried_out_one_after_the_other_at_their_point_and_count(tmp_path: Path) -> None:
    at = Injector(tmp_path, clock=lambda: 5.0)
    plan.write(tmp_path, [Order(Point.BEGUN, "sleep:0", count=2), Order(Point.ABORTED, "raise")])
    at(Point.ABORTED)
    at(Point.BEGUN)
    assert plan.events(tmp_path) == []
    at(Point.BEGUN)
    with pytest.raises(Injected):
        at(Point.ABORTED)
    at(Point.ABORTED)
    assert [(event.time, event.point, event.action) for event in plan.events(tmp_path)] == [
        (5.0, "begun", "sleep:0"),
        (5.0, "aborted", "raise"),
    ]


def test_a_withdrawn_order_is_not_carried_out(tmp_path: Path) -> None:
    plan.write(tmp_path, [Order(Point.BEGUN, "raise")])
    plan.withdraw(tmp_path)
    Injector(tmp_path)(Point.BEGUN)
    assert plan.events(tmp_path) == []


def test_a_kill_at_a_point_ends_the_process_there_and_says_so_first(tmp_path: Path) -> None:
    plan.write(tmp_path, [Order(Point.COMMITTED, "kill")])
    script = f"from pathlib import Path; from tests.crash.plan import *; Injector(Path({str(tmp_path)!r}))(Point.COMMITTED); print('on')"
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, b"")
    assert [event.action for event in plan.events(tmp_path)] == ["kill"]


def test_who_takes_records_can_be_seen_from_outside(tmp_path: Path) -> None:
    assert plan.taking(tmp_path) is None
    Injector(tmp_path)(Point.POLLED)
    taking = plan.taking(tmp_path)
    assert taking is not None
    assert taking[0] == os.getpid()


def test_who_takes_records_is_seen_at_any_moment(tmp_path: Path) -> None:
    """One look between two states of the file would have a worker taken for silent, and killed."""
    at, pid, ended = Injector(tmp_path), os.getpid(), threading.Event()

    def take() -> None:
        while not ended.is_set():
            at._touched = 0.0
            at(Point.POLLED)

    at(Point.POLLED)
    taking = threading.Thread(target=take)
    taking.start()
    try:
        seen = {found and found[0] for found in (plan.taking(tmp_path) for _ in range(5_000))}
    finally:
        ended.set()
        taking.join()
    assert seen == {pid}


@pytest.mark.parametrize("kind", damage.Kind)
def test_damage_changes_one_file_of_every_store(kind: damage.Kind, tmp_path: Path) -> None:
    assert not damage.apply(kind, tmp_path, random.Random(0))
    content = bytes(range(200))
    stores = [tmp_path / "app" / name for name in ("0", "1")]
    for store in stores:
        store.mkdir(parents=True)
        for name in ("CURRENT", "MANIFEST-000005", "000009.sst", "LOG"):
            (store / name).write_bytes(content)
    assert damage.apply(kind, tmp_path, random.Random(0))
    for store in stores:
        changed = [path.name for path in sorted(store.iterdir()) if path.read_bytes() != content]
        gone = 4 - len(list(store.iterdir()))
        assert len(changed) + gone == 1
        assert all(name.upper().startswith((kind.split(",")[0], "000009.SST")) for name in changed)


@pytest.mark.skipif(
    not disk.possible(), reason="no mount namespace here: unshare --map-root-user --mount does not work"
)
def test_a_small_disk_can_be_filled_freed_and_made_read_only(tmp_path: Path) -> None:
    small = disk.SmallDisk(tmp_path / "disk", 2)
    try:
        (small.outside / "file").write_bytes(b"1")
        small.fill()
        with pytest.raises(OSError, match="No space left"):
            (small.outside / "other").write_bytes(bytes(5000))
        small.free()
        (small.outside / "other").write_bytes(bytes(5000))
        small.read_only()
        with pytest.raises(OSError, match="Read-only"):
            (small.outside / "file").write_bytes(b"2")
        small.writable()
        seen = subprocess.run([*small.prefix, "ls", str(small.folder)], capture_output=True, text=True, check=True)
        assert seen.stdout.split() == ["file", "other"]
    finally:
        small.close()
    assert list((tmp_path / "disk").iterdir()) == []


def test_what_is_fed_is_mostly_interactions_with_a_little_of_everything() -> None:
    log = source.log_of(None, seed=0)
    fed = source.records(log, random.Random(0))
    drawn = [next(fed) for _ in range(20_000)]
    malformed = [
        value for key, value in drawn if user_of(key) is None or (value is not None and said(value, 0) is None)
    ]
    assert 5 < len(malformed) < 100
    assert 5 < sum(value is None for key, value in drawn if user_of(key)) < 100
    known = {str(item) for item in source.catalogue_of(log, seed=0)}
    items = [heard.item for key, value in drawn if value is not None and (heard := said(value, 0)) is not None]
    assert 0.5 < sum(item in known for item in items) / len(items) < 1


def test_the_longest_wait_is_that_of_the_record_that_was_taken_latest() -> None:
    progress = Progress.__new__(Progress)
    progress.ends = deque(Sample(float(at), {0: 10 * at, 1: 5}) for at in range(10))
    # Partition 0 keeps up until 3, stands until 7, and has caught up at 8.
    progress.committed = deque(
        Sample(at + 0.5, {0: 10 * (at if at <= 3 else 3 if at < 7 else at), 1: 5}) for at in range(12)
    )
    assert progress.longest_wait(0.0, 2.0) == 0.5
    assert progress.longest_wait(2.0, 8.0) == 3.5
    assert progress.recovered_at(3.5) == 7.5
    assert progress.recovered_at(9.0) is None
