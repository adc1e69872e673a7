"""The options that say how a log is read, the same for every command, and the variables of the worker behind them."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from stream.commands.log_options import LogOptions, log_options
from stream.commands.main import main


@click.command()
@log_options
def shown(log: str, reading: LogOptions) -> None:
    for row in reading.open(log).interactions.collect().rows():
        click.echo(row)


def _run(*words: str, **environ: str) -> Result:
    return CliRunner().invoke(shown, list(words), env=environ)


@pytest.fixture
def log(tmp_path: Path) -> str:
    lines = [
        '{"who": "ann", "product": {"id": "00022"}, "at": 5, "type": "view"}',
        '{"who": "ann", "product": {"id": "7"}, "at": 5, "type": "purchase"}',
        '{"who": "ann", "product": null, "at": null, "type": "login"}',
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    return str(tmp_path / "log.jsonl")


SHOP = {
    "REC2PM_USER_FIELD": "who",
    "REC2PM_ITEM_FIELD": "product.id",
    "REC2PM_TIME_FIELD": "at",
    "REC2PM_EVENT_FIELD": "type",
    "REC2PM_EVENTS": "view, purchase",
    "REC2PM_TIME_UNIT": "s",
    "REC2PM_TIME_RANGE": "1970-01-01..2000-01-01",
}
OPTIONS = ["--user-column", "who", "--item-column", "product.id", "--timestamp-column", "at", "--event-column", "type"]
OPTIONS += ["--events", "view,purchase", "--time-unit", "s", "--time-range", "1970-01-01..2000-01-01"]


def test_options_and_variables_say_the_same(log: str) -> None:
    by_variable, by_option = _run(log, **SHOP), _run(log, *OPTIONS)
    assert by_variable.exit_code == by_option.exit_code == 0, by_variable.output
    assert by_variable.stdout == by_option.stdout == "('ann', '00022', 5000, 'view')\n('ann', '7', 5000, 'purchase')\n"
    assert by_variable.stderr.splitlines() == [
        "log: 1 row with other events passed over; 2 interactions are left",
        "log: 100.0% of the interactions have the same time as another one of their user. They keep the order of the log",
    ]


@pytest.mark.parametrize("environ", [{}, {"REC2PM_USER_FIELD": "nobody", "REC2PM_TIME_FIELD": "never"}])
def test_columns_may_be_named_in_one(log: str, environ: dict[str, str]) -> None:
    named = ["--columns", "user=who,item=product.id,time=at,event=type"]
    in_one = _run(log, *named, *OPTIONS[8:], **environ)
    assert in_one.exit_code == 0, in_one.output
    assert in_one.stdout == _run(log, *OPTIONS).stdout


def test_an_option_comes_before_its_variable(log: str) -> None:
    assert _run(log, "--events", "view", **SHOP).stdout == "('ann', '00022', 5000, 'view')\n"


def test_a_user_says_what_the_ids_are(log: str) -> None:
    assert _run(log, "--id-type", "integer", **SHOP).stdout.startswith("('ann', 22, 5000")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--events", "view"], "--events needs --event-column"),
        (["--event-column", "type"], "--event-column needs --events"),
        (["--time-range", "2024"], "expected FROM..UNTIL"),
        (["--time-unit", "h"], "'h' is not one of"),
        (["--id-type", "float"], "'float' is not one of"),
        (["--columns", "who=a"], "has 'who=a', expected each of user=NAME, item=NAME, time=NAME and event=NAME"),
        (["--columns", "user=a,user=b"], "has 'user=b', expected each of user=NAME"),
        (["--columns", "user"], "has 'user', expected each of"),
        (["--columns", "user="], "has 'user=', expected each of"),
        (["--columns", "time=at", "--timestamp-column", "at"], "--columns and --timestamp-column both name a column"),
        (["--columns", "event=type"], "--event-column needs --events"),
    ],
)
def test_options_that_cannot_be_are_wrong_usage(log: str, words: list[str], message: str) -> None:
    found = _run(log, *words)
    assert found.exit_code == 2
    assert message in found.stderr


@pytest.mark.parametrize("command", ["validate", "train", "evaluate", "produce", "demo"])
def test_every_command_that_reads_a_log_has_the_options(command: str) -> None:
    names = {option for parameter in main.commands[command].params for option in parameter.opts}
    assert names >= {*OPTIONS[::2], "--id-type", "--columns"}
