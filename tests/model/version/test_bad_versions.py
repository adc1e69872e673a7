"""No kind of bad version gets through a trial, and each is refused in words."""

import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from model.version import trial
from model.version.registry import Registry
from tests.model import bad_versions

LIMITS = {"hangs in warm-up": 10.0}
LONG_S = 120.0
MEMORY_BYTES = 700 << 20

HOLDER = """
import socket, sys
from pathlib import Path
from model.version.trial import tried
listening = socket.create_server(("127.0.0.1", 0))
listening.set_inheritable(True)
tried(Path(sys.argv[1]), timeout_s=600)
"""
"""A process that holds a socket, and tries a version."""


@pytest.mark.parametrize("kind", bad_versions.KINDS)
def test_a_bad_version_is_refused_in_words(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    bad = bad_versions.KINDS[kind]
    folder = bad_versions.folder(bad.make(Registry(tmp_path)))
    found = trial.tried(folder, timeout_s=LIMITS.get(kind, LONG_S), memory_bytes=MEMORY_BYTES)
    assert found.why is not None
    assert bad.why in found.why
    assert "starting" not in found.why
    assert found.why.isprintable()
    assert capfd.readouterr() == ("", ""), "what a program prints stays in its process"


def becomes(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
def test_a_trial_has_no_socket_of_its_parent_and_ends_with_it_although_it_hangs(tmp_path: Path) -> None:
    version = bad_versions.KINDS["hangs in warm-up"].make(Registry(tmp_path))
    parent = psutil.Popen([sys.executable, "-c", HOLDER, version.uri], start_new_session=True)
    try:
        becomes(lambda: bool(parent.children()))
        [child] = parent.children()
        # It hangs: it has loaded torch, and computes.
        becomes(lambda: child.cpu_times().user > 2.0)
        opened = [str(each.readlink()) for each in Path(f"/proc/{child.pid}/fd").iterdir()]
        assert not [target for target in opened if target.startswith("socket:")]
        assert Path(f"/proc/{child.pid}/oom_score_adj").read_text() == "1000\n"
        assert child.nice() > parent.nice()
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        becomes(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    finally:
        for each in (*parent.children(), parent) if parent.is_running() else ():
            each.kill()


def test_without_processes_to_spare_a_trial_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-such-python"))
    assert re.match(
        "no process can be started to try it: .*no-such-python", str(trial.tried(tmp_path, timeout_s=LONG_S).why)
    )
