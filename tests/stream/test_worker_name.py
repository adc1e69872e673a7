"""A worker's slot: two live processes never share one, and a dead one's is taken over."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stream.errors import SettingsInvalid
from stream.worker_name import hold

HOLDS = """
import sys
from pathlib import Path
from stream.worker_name import hold
print(hold(Path(sys.argv[1]), sys.argv[2] or None).name, flush=True)
sys.stdin.read()
"""

Process = subprocess.Popen[str]


@pytest.fixture
def holding() -> Iterator[Callable[..., tuple[Process, str]]]:
    """Start a process that holds a slot: (process, the slot's name)."""
    started: list[Process] = []

    def start(folder: Path, name: str = "") -> tuple[Process, str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDS, str(folder), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_slot_is_made_where_there_is_none(tmp_path: Path) -> None:
    slot = hold(tmp_path / "not" / "there", None)
    assert re.fullmatch(r"w-[0-9a-f]{8}", slot.name)
    slot.release()


def test_a_released_slot_is_the_same_after_a_restart(tmp_path: Path) -> None:
    first = hold(tmp_path, None)
    first.release()
    again = hold(tmp_path, None)
    assert again.name == first.name
    again.release()


def test_two_live_processes_get_two_slots(tmp_path: Path, holding: Callable[..., tuple[Process, str]]) -> None:
    (_, one), (_, other) = holding(tmp_path), holding(tmp_path)
    assert one
    assert other
    assert one != other
    third = hold(tmp_path, None)
    assert third.name not in (one, other)
    third.release()


def test_the_slot_of_a_killed_process_is_taken_over(
    tmp_path: Path, holding: Callable[..., tuple[Process, str]]
) -> None:
    (dead, name), (_, living) = holding(tmp_path), holding(tmp_path)
    dead.kill()
    dead.wait(30)
    slot = hold(tmp_path, None)
    assert slot.name == name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, living]), "no third slot was made"
    slot.release()


def test_a_named_slot_that_is_held_is_refused_with_the_holders_pid(
    tmp_path: Path, holding: Callable[..., tuple[Process, str]]
) -> None:
    process, name = holding(tmp_path, "worker-0")
    assert name == "worker-0"
    with pytest.raises(
        SettingsInvalid,
        match=rf"REC2PM_WORKER=worker-0: a live worker holds this slot in {tmp_path} \(pid {process.pid}\)",
    ):
        hold(tmp_path, "worker-0")
    process.kill()
    process.wait(30)
    slot = hold(tmp_path, "worker-0")
    assert slot.name == "worker-0"
    slot.release()


def test_a_named_slot_is_kept_for_the_worker_of_that_name(tmp_path: Path) -> None:
    hold(tmp_path, "pod-0").release()
    slot = hold(tmp_path, None)
    assert slot.name != "pod-0"
    hold(tmp_path, "pod-0").release()
    slot.release()


def test_a_slot_held_in_this_process_is_held_too(tmp_path: Path) -> None:
    slot = hold(tmp_path, "mine")
    with pytest.raises(SettingsInvalid):
        hold(tmp_path, "mine")
    other = hold(tmp_path, None)
    assert other.name != "mine"
    other.release()
    slot.release()


def test_a_slot_is_not_inherited_by_the_processes_a_worker_starts(tmp_path: Path) -> None:
    """Or a forgotten child would keep the slot of a worker that is long dead."""
    slot = hold(tmp_path, "mine")
    says_hello = "import sys; print(flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", says_hello], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()  # it runs: what is closed at its start is closed
        slot.release()
        hold(tmp_path, "mine").release()
    finally:
        child.communicate()
