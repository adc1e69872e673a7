"""Logs with next to nothing in them, through every command: an answer or an advice that works, never a traceback."""

import json
import re
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest
from click.testing import CliRunner, Result

from model.networks.config import DEFAULT_KIND
from model.times import TimeRule
from model.version.registry import Registry
from model.version.runtime import Runtime
from stream.commands.demo.log import SHOWN_USERS, sampled, shown_users
from stream.commands.log_options import LogOptions
from stream.commands.main import main
from tests.fakes import FakeLink, FakeRecord, run_to_end, said, worker_on
from tests.model.quick import small

Rows = list[tuple[Any, Any, int]]

LOGS: dict[str, Rows] = {
    "one row": [("a", 1, 0)],
    "two rows": [("a", 1, 0), ("b", 2, 1)],
    "five rows": [("a", 1, 0), ("a", 2, 1), ("b", 1, 2), ("b", 3, 3), ("a", 3, 4)],
    "one user": [("a", i % 7, i) for i in range(300)],
    "one item": [(f"u{i % 9}", 1, i) for i in range(300)],
    "two items": [(f"u{i % 9}", i // 9 % 2, i) for i in range(300)],
    "all rows twice": [(f"u{i // 2 % 9}", i // 2 * 7 % 31, i // 2) for i in range(600)],
    "everybody once": [(f"u{i}", i % 9, i) for i in range(300)],
    "one time": [(f"u{i % 9}", i * 7 % 31, 0) for i in range(300)],
    "nobody has a segment": [(f"u{i // 4}", i * 7 % 31, i) for i in range(300)],
    "new items at the end": [(f"u{i % 9}", i * 7 % 31 if i < 270 else 1_000 + i, i) for i in range(300)],
    "new users at the end": [(f"u{i % 9 if i < 270 else i}", i * 7 % 31, i) for i in range(300)],
    "every item once": [(f"u{i % 9}", i, i) for i in range(300)],
    "everybody has one item": [(f"u{i % 9}", i % 9, i) for i in range(300)],
    "users and items are one number": [(7, 7, i) for i in range(50)],
}
NOBODY_CAN_TRAIN_ON = {
    "one row",
    "two rows",
    "one user",
    "one item",
    "everybody once",
    "users and items are one number",
}


FAILS_AN_AUDIT = {
    "all rows twice": {"duplicates", "next item"},
    "one time": {"times", "cold items", "next item"},
    "nobody has a segment": {"next item"},
    "new items at the end": {"next item"},
    "new users at the end": {"next item"},
}
"""In most of these logs, each item has one successor."""


AS_IT_IS = LogOptions("user_id", "item_id", "timestamp", None, frozenset(), None, TimeRule())


@pytest.fixture
def log(name: str, tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    rows = [(user, item, 1_700_000_000_000 + second * 1_000) for user, item, second in LOGS[name]]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(path)
    return path


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with a model of another log, which knows some of these items."""
    folder = tmp_path_factory.mktemp("usual")
    rows = [(f"u{i % 9}", i * 7 % 31, 1_600_000_000_000 + i) for i in range(400)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(folder / "log.csv")
    assert _train(folder / "log.csv", folder / "models").exit_code == 0
    return folder / "models"


def _run(*words: object) -> Result:
    """A command that ends in an answer, or says in words why not."""
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert isinstance(done.exception, SystemExit | None), done.exception
    assert "Traceback" not in done.output
    if done.exit_code:
        assert done.exit_code == 1, done.output
        assert [line for line in done.stderr.splitlines() if line.startswith("rec2pm: ")], done.output
    return done


def _train(log: Path, models: Path, *more: str) -> Result:
    kind = next((setting.removeprefix("kind=") for setting in more if setting.startswith("kind=")), DEFAULT_KIND)
    settings = [word for setting in (*small(kind), "max_epochs=1", *more) for word in ("--set", setting)]
    return _run("train", log, "--out", models, "--name", "m", *settings)


def _evaluate(log: Path, models: Path, out: Path, *more: str) -> Result:
    return _run("evaluate", log, "--registry", models, "--model", "m", "--out", out, *more)


def _evaluated(log: Path, models: Path, out: Path, *more: str) -> None:
    """Evaluate, with what is advised if there is nothing to evaluate."""
    done = _evaluate(log, models, out, *more)
    if done.exit_code:
        advised = re.search(r"((?:--\w+ \S+ )+)works", done.stderr)
        assert advised is not None, done.stderr
        split = () if "--split" in advised[1] else ("--split", "time")
        done = _evaluate(log, models, out, *split, *advised[1].split())
    assert done.exit_code == 0, done.stderr
    assert (out / "report.md").is_file()


@pytest.mark.parametrize("name", LOGS)
def test_training_answers_or_gives_an_advice_that_works_and_the_model_serves(
    name: str, log: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    done = _train(log, models)
    if done.exit_code and (advised := re.findall(r"--set ([^\s,]+)", done.stderr)):
        done = _train(log, models, *advised)
        assert done.exit_code == 0, done.stderr
    if name in NOBODY_CAN_TRAIN_ON:
        assert done.exit_code == 1
        assert "No other recipe that was tried helps: train on a larger log" in done.stderr
        return
    assert done.exit_code == 0, done.stderr
    for split in ("last-out", "time"):
        _evaluated(log, models, tmp_path / split, "--split", split)
    records = [
        FakeRecord(str(user).encode(), said(item, second), 0, at) for at, (user, item, second) in enumerate(LOGS[name])
    ]
    link = FakeLink(records, [])
    model = Runtime.load(Registry(models).resolve("m").folder)
    run_to_end(worker_on(link, tmp_path / "state", cast("Any", model)), link)
    assert {user for user, _ in link.lists()} == {str(user).encode() for user, _, _ in LOGS[name]}
    assert all(made is not None and made.items for _, made in link.lists())


@pytest.mark.parametrize("name", sorted(NOBODY_CAN_TRAIN_ON))
def test_another_model_is_evaluated_on_what_none_can_train_on(
    name: str, log: Path, usual: Path, tmp_path: Path
) -> None:
    for split in ("last-out", "time"):
        if len(LOGS[name]) == 1:
            assert "An evaluation needs two" in _evaluate(log, usual, tmp_path, "--split", split).stderr
        else:
            _evaluated(log, usual, tmp_path / split, "--split", split)


@pytest.mark.parametrize("name", LOGS)
def test_an_audit_has_every_finding(name: str, log: Path) -> None:
    done = CliRunner().invoke(main, ["validate", str(log), "--json"])
    assert isinstance(done.exception, SystemExit | None), done.exception
    found = json.loads(done.stdout)["findings"]
    assert len(found) == 14
    failed = {each["name"] for each in found if each["verdict"] == "FAIL"}
    assert done.exit_code == bool(failed)
    assert failed == FAILS_AN_AUDIT.get(name, set())


@pytest.mark.parametrize("name", LOGS)
def test_the_demo_finds_users_to_show(log: Path, name: str) -> None:
    played = sampled(str(log), AS_IT_IS)
    cut = int(len(played.interactions) * 0.7)
    shown = shown_users(played, cut)
    assert len(shown) <= SHOWN_USERS
    assert bool(shown) == (cut > 0)
