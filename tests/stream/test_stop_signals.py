"""How a process ends by a signal that comes while it starts, as PID 1 of a container too."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from stream.stop_signals import EXIT_INTERRUPTED, EXIT_TERMINATED
from tests.processes import environ

AT_ONCE_S = 5.0
"""On a busy machine; the longest piece of an import that cannot be interrupted is a fraction of a second."""
STARTS = """
import os, sys
import stream.__main__ as entry

def first(arguments, end_at_once=entry.end_at_once):
    assert "click" not in sys.modules, "the signals come first"
    end_at_once(arguments)
    os.write(1, b".")

entry.end_at_once = first
entry.main()
"""
"""Writes a byte when the program has its handlers. Before that, Python itself is starting."""
AS_PID_1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def ended(
    arguments: Sequence[str], number: int, after_s: float, folder: Path, before: Sequence[str] = ()
) -> tuple[int, float]:
    """The exit code of a process that gets a signal so long after it began, and the seconds until it was gone."""
    env = environ("127.0.0.1:9", "nobody", MODELS=str(folder), STATE_DIR=str(folder / "state"))
    command = [*before, sys.executable, "-P", "-c", STARTS, *arguments]
    # Where a shell runs the tests in its background they ignore SIGINT, and so would what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        time.sleep(after_s)
        began = time.monotonic()
        os.kill(child_of(process.pid) if before else process.pid, number)
        return process.wait(30), time.monotonic() - began


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def can_be_pid_1() -> bool:
    try:
        return subprocess.run([*AS_PID_1, "true"], capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.1, 0.2, 0.35])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, EXIT_INTERRUPTED)])
def test_a_worker_that_is_starting_ends_at_once(after_s: float, number: int, code: int, tmp_path: Path) -> None:
    ends, seconds = ended(["worker"], number, after_s, tmp_path)
    assert ends == code
    assert seconds < AT_ONCE_S


@pytest.mark.skipif(not can_be_pid_1(), reason="this user may not make a PID namespace")
@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("arguments", [["worker"], ["view"]])
def test_pid_1_of_a_container_ends_at_once_too(arguments: list[str], after_s: float, tmp_path: Path) -> None:
    ends, seconds = ended(arguments, signal.SIGTERM, after_s, tmp_path, AS_PID_1)
    assert ends == 0
    assert seconds < AT_ONCE_S


@pytest.mark.parametrize(
    ("arguments", "number", "code"),
    [
        (["train", "log.csv", "--out", "models"], signal.SIGTERM, 0),
        (["train", "log.csv", "--out", "models"], signal.SIGINT, EXIT_INTERRUPTED),
        (["-v", "view"], signal.SIGTERM, 0),
        (["view"], signal.SIGINT, EXIT_INTERRUPTED),
        (["produce", "log.csv"], signal.SIGTERM, EXIT_TERMINATED),
        (["user", "forget", "worker", "--execute"], signal.SIGTERM, EXIT_TERMINATED),
        (["topics", "check"], signal.SIGINT, EXIT_INTERRUPTED),
    ],
)
def test_the_exit_code_says_whether_the_command_has_done_its_work(
    arguments: list[str], number: int, code: int, tmp_path: Path
) -> None:
    assert ended(arguments, number, 0.02, tmp_path)[0] == code
