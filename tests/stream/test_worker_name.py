"""A worker's name: two live processes never share one, and the next process claims a dead one's."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stream.errors import SettingsInvalid
from stream.worker_name import claim

CLAIMS = """
import sys
from pathlib import Path
from stream.worker_name import claim
print(claim(Path(sys.argv[1]), sys.argv[2] or None).name, flush=True)
sys.stdin.read()
"""

Process = subprocess.Popen[str]


@pytest.fixture
def claiming() -> Iterator[Callable[..., tuple[Process, str]]]:
    """Start a process that claims a name: (process, the name)."""
    started: list[Process] = []

    def start(folder: Path, name: str = "") -> tuple[Process, str]:
        process = subprocess.Popen(
            [sys.executable, "-c", CLAIMS, str(folder), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_name_is_made_up_where_there_is_none(tmp_path: Path) -> None:
    claimed = claim(tmp_path / "not" / "there", None)
    assert re.fullmatch(r"w-[0-9a-f]{8}", claimed.name)
    claimed.release()


def test_a_released_name_is_the_same_after_a_restart(tmp_path: Path) -> None:
    first = claim(tmp_path, None)
    first.release()
    again = claim(tmp_path, None)
    assert again.name == first.name
    again.release()


def test_two_live_processes_get_two_names(tmp_path: Path, claiming: Callable[..., tuple[Process, str]]) -> None:
    (_, one), (_, other) = claiming(tmp_path), claiming(tmp_path)
    assert one
    assert other
    assert one != other
    third = claim(tmp_path, None)
    assert third.name not in (one, other)
    third.release()


def test_the_name_of_a_killed_process_is_claimed_by_the_next(
    tmp_path: Path, claiming: Callable[..., tuple[Process, str]]
) -> None:
    (dead, name), (_, living) = claiming(tmp_path), claiming(tmp_path)
    dead.kill()
    dead.wait(30)
    claimed = claim(tmp_path, None)
    assert claimed.name == name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, living]), "no third name was made up"
    claimed.release()


def test_a_given_name_that_a_live_process_has_is_refused_with_its_pid(
    tmp_path: Path, claiming: Callable[..., tuple[Process, str]]
) -> None:
    process, name = claiming(tmp_path, "worker-0")
    assert name == "worker-0"
    with pytest.raises(
        SettingsInvalid,
        match=rf"REC2PM_WORKER=worker-0: a live worker \(pid {process.pid}\) has this name in {tmp_path}",
    ):
        claim(tmp_path, "worker-0")
    process.kill()
    process.wait(30)
    claimed = claim(tmp_path, "worker-0")
    assert claimed.name == "worker-0"
    claimed.release()


def test_a_given_name_is_kept_for_the_worker_of_that_name(tmp_path: Path) -> None:
    claim(tmp_path, "pod-0").release()
    claimed = claim(tmp_path, None)
    assert claimed.name != "pod-0"
    claim(tmp_path, "pod-0").release()
    claimed.release()


def test_a_name_claimed_in_this_process_is_claimed_too(tmp_path: Path) -> None:
    claimed = claim(tmp_path, "mine")
    with pytest.raises(SettingsInvalid):
        claim(tmp_path, "mine")
    other = claim(tmp_path, None)
    assert other.name != "mine"
    other.release()
    claimed.release()


def test_a_name_is_not_inherited_by_the_processes_a_worker_starts(tmp_path: Path) -> None:
    """Otherwise a forgotten child would keep the name of a worker that is long dead."""
    claimed = claim(tmp_path, "mine")
    says_hello = "import sys; print(flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", says_hello], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()  # it runs: what is closed at its start is closed
        claimed.release()
        claim(tmp_path, "mine").release()
    finally:
        child.communicate()
