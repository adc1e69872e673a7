"""`rec2pm validate`: the audit on a terminal and for programs, and its exit code."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from model.audit import Finding
from stream.commands.main import main
from stream.commands.validate import _show
from tests.model.audit.logs import SPLIT_MS, START_MS, STEP_MS, plain, version


def _run(*words: object) -> Result:
    return CliRunner().invoke(main, ["validate", *map(str, words)], env={"COLUMNS": "100"})


def _csv(folder: Path, rows: list[Any]) -> Path:
    path = folder / "log.csv"
    lines = "".join(f"{user},{item},{ms}\n" for user, item, ms in rows)
    path.write_text(f"user_id,item_id,timestamp\n{lines}")
    return path


def test_findings_are_shown_with_their_words_and_counted(tmp_path: Path) -> None:
    done = _run(_csv(tmp_path, plain()))
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["OK", "rows", "6,000", "interactions", "of", "100", "users", "with", "500", "items"]
    assert lines[-1] == "14 OK, 0 attention, 0 FAIL"
    assert max(map(len, lines)) <= 100
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("rows", "code", "verdict"),
    [
        (plain(), 0, "OK"),
        (plain()[:50], 0, "attention"),
        ([*plain(), *plain()], 1, "FAIL"),
        ([(1, 2, 5)], 1, "FAIL"),
        ([], 1, "FAIL"),
    ],
)
def test_the_exit_code_is_that_of_the_worst_finding(tmp_path: Path, rows: list[Any], code: int, verdict: str) -> None:
    log = _csv(tmp_path, rows)
    done = _run(log, "--json")
    assert done.exit_code == code
    found = json.loads(done.stdout)
    assert (found["log"], found["verdict"]) == (str(log), verdict)
    assert verdict in {each["verdict"] for each in found["findings"]}
    assert {*found["findings"][0]} == {"name", "verdict", "figure", "words", "value", "version"}


def test_a_log_that_cannot_be_read_fails_with_its_row(tmp_path: Path) -> None:
    done = _run(_csv(tmp_path, [(1, 2, START_MS), (1, "\x1b[31m", START_MS)]))
    assert done.exit_code == 1
    assert done.stdout.startswith("FAIL  reading  the log cannot be read")
    assert "log.csv, line 3: 'item_id' has control characters" in " ".join(done.stdout.split())
    assert "\x1b" not in done.stdout
    assert done.stdout.endswith("0 OK, 0 attention, 1 FAIL\n")


def test_findings_are_neither_control_nor_markup(capsys: pytest.CaptureFixture[str]) -> None:
    _show([Finding("ids", "FAIL", "\x1b[2J [bold]", "film\x1b[31m [red]")])
    assert capsys.readouterr().out.splitlines()[:2] == [
        "FAIL  ids  \\x1b[2J [bold]    ",
        "           film\\x1b[31m [red]",
    ]


def test_models_are_compared_with_the_log(tmp_path: Path) -> None:
    version(tmp_path, trained=(START_MS, SPLIT_MS + STEP_MS * 99))
    log = _csv(tmp_path, plain())
    done = _run(log, "--model", "made", "--model", "made@1", "--registry", tmp_path, "--json")
    found = json.loads(done.stdout)["findings"]
    assert [(each["name"], each["verdict"]) for each in found if each["version"] == "made@1"] == [
        ("unknown items", "OK"),
        ("training range", "FAIL"),
    ]
    assert done.exit_code == 1
    early = _run(log, "--model", "made", "--registry", tmp_path, "--split", "0.99", "--json")
    assert json.loads(early.stdout)["findings"][-1]["verdict"] == "OK"


@pytest.mark.parametrize(
    "words",
    [
        ["--split", "1"],
        ["--model", "nobody"],
        ["--columns", "who=a"],
        ["--time-unit", "h"],
        ["--columns", "user=a", "--user-column", "b"],
    ],
)
def test_wrong_usage_has_its_own_exit_code(tmp_path: Path, words: list[str]) -> None:
    done = _run(_csv(tmp_path, plain()), *words)
    assert done.exit_code == 2
    assert done.stdout == ""
