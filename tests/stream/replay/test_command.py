"""The command `rec2pm replay`: leaks that are planted are found or impossible, and models that it trains have none."""

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import msgspec
import polars as pl
import pytest

from model.training import recipe as recipes
from model.version.manifest import Training
from model.version.registry import Registry
from stream.commands.replay import replay as command
from stream.settings import Settings
from tests.model import quick, tiny
from tests.model.audit.logs import START_MS, STEP_MS, plain, shuffled, with_next
from tests.processes import REC2PM, environ

pytest.importorskip("matplotlib", reason="the extra `evaluate` is not installed")

TRAINED_UNTIL_MS = START_MS + 4500 * STEP_MS
FUTURE_MS = 4_000_000_000_000


def replayed(folder: Path, log: pl.DataFrame, *options: str, **settings: str) -> tuple[str, dict[str, Any]]:
    """What the command said, and its report.json."""
    log.write_parquet(folder / "log.parquet")
    typed = [*REC2PM, "replay", str(folder / "log.parquet"), "--partitions", "2", "--jobs", "1"]
    ended = subprocess.run(
        [*typed, "--out", str(folder / "out"), *options],
        env=environ("127.0.0.1:9", "nobody", MODELS=str(folder / "models"), **settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr, msgspec.json.decode((folder / "out" / "report.json").read_bytes())


def of_all(out: Path, model: str) -> pl.DataFrame:
    """What is known about each interaction."""
    parts = [out / "interactions.parquet", out / model / "scored.parquet"]
    return pl.concat([pl.read_parquet(path) for path in parts], how="horizontal")


def red(report: dict[str, Any]) -> str:
    return "\n".join(each["words"] for each in report["warnings"] if each["red"])


@pytest.mark.parametrize(
    ("parameter", "field"),
    [
        ("cadence", "recommend"),
        ("exclude", "exclude"),
        ("top_k", "top_k"),
        ("keep_segments", "keep_segments"),
    ],
)
def test_what_a_worker_decides_has_the_workers_variable_and_default(parameter: str, field: str) -> None:
    (option,) = (each for each in command.params if each.name == parameter)
    assert isinstance(option, click.Option)
    assert (option.envvar, option.default) == (f"REC2PM_{field.upper()}", Settings.model_fields[field].default)


def test_planted_leaks_are_found_or_impossible(tmp_path: Path) -> None:
    """Ids that give away the next one, a time in the future, a model that was trained on targets, a shuffled file."""
    rows = with_next(plain(), lambda item, after: f"i{item}>i{after}")
    rows = shuffled([*rows, (1, "i1>i2", FUTURE_MS)])
    log = pl.DataFrame(rows, {"user_id": pl.Int64, "item_id": pl.String, "timestamp": pl.Int64}, orient="row")
    made = tiny.serving()
    training = Training(
        log="old.parquet",
        rows=1,
        users=1,
        items=1,
        from_ms=START_MS,
        until_ms=TRAINED_UNTIL_MS,
        split="by time",
        seed=0,
        epochs=1,
        best_epoch=1,
        wall_s=1.0,
        samples=1,
    )
    Registry(tmp_path / "models").add(made, replace(tiny.manifest(made), training=training), tiny.IDS)
    said, report = replayed(tmp_path, log, "--model", "tiny@1", "--from", "0.5", EXCLUDE="none")
    verdicts = {each["name"]: each["verdict"] for each in report["audit"]}
    for name in ("next item", "times", "training range"):
        assert verdicts[name] == "FAIL", name
        assert f"audit: FAIL {name}: " in said
        assert f"The log fails a check: {name}." in red(report)
    assert verdicts["order"] == "attention"
    # A shuffled file is replayed in the order of time all the same.
    table = of_all(tmp_path / "out", "tiny@1")
    assert table.sort("row")["timestamp"].to_list() == sorted(log["timestamp"])
    assert (
        table.sort("user_id", "taken")["timestamp"].to_list()
        == log.sort(pl.col("user_id").cast(pl.String), "timestamp")["timestamp"].to_list()
    )
    # What the model was trained on is marked, and counts for nothing.
    listed = table.filter(pl.col("version").is_not_null())
    assert listed["leak"].equals(listed["timestamp"] <= TRAINED_UNTIL_MS)
    counts = report["counts"]
    assert counts["leaked"] == listed.filter(pl.col("counted") & pl.col("leak")).height > 1000
    assert counts["scored"] == listed.filter(pl.col("counted") & ~pl.col("leak")).height > 1000
    assert "Trained on the test" in red(report)
    # Whether lists have repeats is stated, with their share.
    assert report["head"]["exclude"] == "none"
    assert any(each["name"] == "own items" for each in report["rankings"])
    (line,) = (each for each in (tmp_path / "out" / "report.md").read_text().splitlines() if "Repeats:" in each)
    assert "`REC2PM_EXCLUDE` was `none`: lists may have such items" in line


def test_models_that_are_trained_on_the_way_have_no_leaks_and_switch(tmp_path: Path) -> None:
    small = [word for setting in (*quick.SMALL, "max_epochs=1") for word in ("--set", setting)]
    said, report = replayed(
        tmp_path,
        quick.LOG,
        *("--train-every", "7d", "--train-every", "20d", "--from", "2026-01-18"),
        *("--recipe", recipes.DEFAULT, *small),
    )
    for line in ("training 1 of 2 of every-7d", "training 2 of 2 of every-7d", "training 1 of 1 of every-20d"):
        assert line in said
    models = [each["name"] for each in report["rankings"] if each["is_model"]]
    assert models == ["every-7d", "every-20d", "every-7d without memory"]
    assert (report["figures"], report["counts"]["leaked"], red(report)) == ("clean", 0, "")
    assert {each["verdict"] for each in report["audit"] if each["name"] == "training range"} == {"OK"}
    switch = report["head"]["from"] + 7 * 86_400_000
    for name, later in (("every-7d", "every-7d@2"), ("every-20d", "every-20d@1")):
        assert not of_all(tmp_path / "out", name).filter("counted")["leak"].any()
        lists = pl.read_parquet(tmp_path / "out" / name / "recommendations.parquet")
        assert set(lists.filter(pl.col("as_of") < switch)["model"]) == {f"{name}@1"}
        assert set(lists.filter(pl.col("as_of") >= switch)["model"]) == {later}
