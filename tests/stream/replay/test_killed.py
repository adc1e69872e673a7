"""`rec2pm replay` itself, ended by SIGKILL: no process outlives it, and the next one goes on to the same files."""

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.model import tiny
from tests.processes import REC2PM, environ, wait_until
from tests.stream.replay.test_replay import files_of, log_of

pytest.importorskip("matplotlib", reason="the extra `evaluate` is not installed")
ROWS = 4_000


def command(folder: Path, out: str) -> list[str]:
    options = ["--model", "tiny@1", "--out", str(folder / out), "--partitions", "3", "--jobs", "2", "--from", "0.5"]
    return [*REC2PM, "replay", str(folder / "log.parquet"), *options]


def test_a_replay_that_is_killed_again_and_again_writes_the_same_files(tmp_path: Path) -> None:
    log_of(ROWS).write_parquet(tmp_path / "log.parquet")
    tiny.add(tmp_path / "models", seed=1)
    env = environ("127.0.0.1:9", "nobody", MODELS=str(tmp_path / "models"))
    whole = subprocess.run(command(tmp_path, "whole"), env=env, capture_output=True, text=True, check=False)
    assert whole.returncode == 0, whole.stderr
    work = tmp_path / "killed" / "work" / "shards"
    for seen, how in (
        ("frames", signal.SIGKILL),
        ("frames", signal.SIGTERM),
        ("recommendations.parquet", signal.SIGKILL),
        ("done.json", signal.SIGKILL),
    ):
        with subprocess.Popen(command(tmp_path, "killed"), env=env, stderr=subprocess.DEVNULL) as process:
            wait_until(lambda process=process, seen=seen: _seen(process, work, seen), 60, seen)
            assert process.poll() is None, "it was not to be so quick"
            children = psutil.Process(process.pid).children(recursive=True)
            os.kill(process.pid, how)
        assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 143)
        _, left = psutil.wait_procs(children, timeout=30)
        assert not left
    ended = subprocess.run(command(tmp_path, "killed"), env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    assert not (tmp_path / "killed" / "work").exists()
    assert (tmp_path / "killed" / "report.html").read_bytes()[:15] == b"<!doctype html>"


def _seen(process: subprocess.Popen[bytes], work: Path, name: str) -> bool:
    """Whether its parts run and have written such a file, or it has ended."""
    if process.poll() is not None:
        return True
    parts = [each for each in psutil.Process(process.pid).children() if "spawn_main" in " ".join(each.cmdline())]
    return len(parts) >= 2 and bool([*work.glob(f"*/*/{name}")])
