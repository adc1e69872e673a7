"""The command `rec2pm evaluate`."""

import importlib.util
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

from stream.commands.main import main
from tests.model import tiny


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("registry")
    tiny.add(root, "tiny", 0)
    tiny.add(root, "tiny", 1)
    return root


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("log") / "clicks.csv"
    ids = [f"item-{i}" for i in rng.integers(1, 61, 900)]
    pl.DataFrame(
        {"who": rng.integers(0, 30, 900), "item_id": ids, "timestamp": 1_700_000_000 + np.arange(900)}
    ).write_csv(path)
    return path


def _run(*arguments: object, **environment: str) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in ("evaluate", *arguments)], env=environment)


def test_it_writes_a_report_and_prints_a_table(log: Path, registry: Path, tmp_path: Path) -> None:
    done = _run(
        log,
        "--user-column",
        "who",
        "--model",
        "tiny@2",
        "--model",
        "tiny@1",
        "--out",
        tmp_path / "out",
        REC2PM_MODELS=str(registry),
    )
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.stdout.splitlines() if line.strip().startswith("tiny@")] == [
        "tiny@2",
        "tiny@1",
    ]
    assert f"report: {tmp_path / 'out' / 'report.md'}" in done.stdout
    assert "warning: tiny@2: its manifest does not say what it was trained on" in done.stderr
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.md", "metrics.json", "accuracy.png"} <= written
    assert "position.png" not in written, "fewer than 30 users a group: not for a picture"


def test_a_model_that_is_not_there_is_one_clear_line(log: Path, registry: Path, tmp_path: Path) -> None:
    done = _run(log, "--user-column", "who", "--model", "nobody", "--registry", registry, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [f"rec2pm: the registry {registry} has no model 'nobody': it has tiny"]
    assert not (tmp_path / "out").exists()


def test_a_point_in_time_is_not_ignored_where_targets_are_the_last_interactions(
    log: Path, registry: Path, tmp_path: Path
) -> None:
    usual = (
        log,
        "--user-column",
        "who",
        "--model",
        "tiny",
        "--registry",
        registry,
        "--out",
        tmp_path / "out",
        "--at",
        "0.9",
    )
    for split in ((), ("--split", "last-out")):
        refused = _run(*usual, *split)
        assert refused.exit_code == 2
        assert "--at needs --split time" in refused.stderr
    assert not (tmp_path / "out").exists()
    assert _run(*usual, "--split", "time").exit_code == 0


@pytest.mark.parametrize("reference", ["tiny/2", "tiny:2", "", "@2"])
def test_what_is_no_name_is_answered_with_what_one_looks_like(
    log: Path, registry: Path, tmp_path: Path, reference: str
) -> None:
    done = _run(log, "--user-column", "who", "--model", reference, "--registry", registry, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        f"rec2pm: {reference!r} is not NAME, NAME@VERSION or NAME@VERSION#SHA256 (64 hexadecimal digits) of the registry {registry}: it has tiny"
    ]


def test_without_the_extra_it_says_what_to_install(log: Path, registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(
        "stream.commands.evaluate.find_spec", lambda name: None if name == "matplotlib" else there(name)
    )
    done = _run(log, "--model", "tiny", "--registry", registry)
    assert done.exit_code == 1
    assert "evaluating needs matplotlib: pip install '.[evaluate]'" in done.stderr
