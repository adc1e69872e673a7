"""Files of the user's own that have our packages' names: `rec2pm`, started in their folder, does not import them."""

import os
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest

from stream.commands.command_line import REC2PM
from stream.commands.demo.run import started_workers
from tests import processes
from tests.model.quick import LOG, SMALL

CONSOLE_SCRIPT = Path(sysconfig.get_path("scripts")) / "rec2pm"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("model", "state", "stream", "bench"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError(f'the stray {__file__} was imported')\n")
    return tmp_path


def _environ() -> dict[str, str]:
    """Without settings of this process's own; our packages are found wherever the tests find them."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("REC2PM_")}
    return {**own, "PYTHONPATH": str(processes.ROOT)}


def _without_model(folder: Path, bootstrap: str) -> dict[str, str]:
    return {**_environ(), "REC2PM_BOOTSTRAP_SERVERS": bootstrap, "REC2PM_MODELS": str(folder / "no-models")}


def _worker_reaches_its_model(command: Sequence[str], folder: Path, bootstrap: str) -> None:
    """It imports everything that a worker needs, and stops because there is no model."""
    environ = _without_model(folder, bootstrap)
    ended = subprocess.run(
        [*command, "worker"], cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert "stray" not in ended.stderr
    assert ended.returncode == 2
    assert "no-models" in ended.stderr.splitlines()[-1]


def test_the_command_line_that_starts_workers_is_not_misled(folder: Path, bootstrap: str) -> None:
    _worker_reaches_its_model(REC2PM, folder, bootstrap)


def test_the_command_line_of_the_tests_is_the_one_of_the_program() -> None:
    assert processes.REC2PM is REC2PM


@pytest.mark.skipif(not CONSOLE_SCRIPT.exists(), reason="rec2pm is not installed in this environment")
def test_the_console_script_is_not_misled(folder: Path, bootstrap: str) -> None:
    _worker_reaches_its_model([str(CONSOLE_SCRIPT)], folder, bootstrap)


def test_the_workers_of_the_demo_are_not_misled(folder: Path, monkeypatch: pytest.MonkeyPatch, bootstrap: str) -> None:
    monkeypatch.chdir(folder)
    environ = _without_model(folder, bootstrap)
    with started_workers(environ, folder) as workers:
        codes = {worker.wait(60) for worker in workers}
    assert codes == {2}
    for log in folder.glob("worker-*.log"):
        assert "stray" not in log.read_text()
        assert "no-models" in log.read_text().splitlines()[-1]


def test_the_processes_that_training_starts_are_not_misled(folder: Path) -> None:
    """multiprocessing starts them with `-c`, which puts the folder on the path until they get their parent's path."""
    LOG.write_csv(folder / "log.csv")
    settings = [word for setting in (*SMALL, "max_epochs=1") for word in ("--set", setting)]
    command = [*REC2PM, "train", "log.csv", "--out", "models", "--devices", "2", *settings]
    ended = subprocess.run(
        command, cwd=folder, env=_environ(), capture_output=True, text=True, timeout=120, check=False
    )
    assert "stray" not in ended.stderr
    assert ended.stdout == "rec2pm@1\n", ended.stderr
