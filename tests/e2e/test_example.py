"""The example of docs/testing.md, as somebody has it who installed rec2pm with the extra `testing` and nothing else."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.environment import Environment
from tests.processes import ROOT


@pytest.mark.parametrize("kafka", ["as here", "embedded"])
def test_the_example_passes_with_the_fixtures_of_the_wheel(
    kafka: str, with_extra: Callable[[str], Environment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kafka == "embedded":
        monkeypatch.delenv("KAFKA_HOME", raising=False)
        monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    made = with_extra("testing")
    folder = tmp_path / "example"
    shutil.copytree(ROOT / "docs" / "example", folder, ignore=shutil.ignore_patterns("__pycache__"))
    only = [] if kafka == "as here" else ["-k", "broker"]
    strict = ["-o", "filterwarnings=error", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [made.python, "-m", "pytest", *strict, *only, folder],
        cwd=tmp_path,
        env=made.environ(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("5 passed" if kafka == "as here" else "1 passed, 4 deselected") in done.stdout
    assert "skipped" not in done.stdout
