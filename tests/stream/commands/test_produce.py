"""`rec2pm produce` before it sends anything: how fast, how long, and which run it is."""

from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from model.times import TimeRule
from stream.commands.pace import Pace
from stream.commands.produce import _say_how_long, produce
from stream.commands.send_log import Rows, Shape
from stream.commands.send_once import RunFile
from stream.errors import ProduceUnfit
from stream.event import Fields
from stream.keys import KeyFormat

LOG = pl.DataFrame({"user_id": ["ann", "bob"], "item_id": [1, 2], "timestamp": [1_577_836_800_000, 1_640_995_200_000]})


def rows(log: pl.DataFrame = LOG, limit: int | None = None) -> Rows:
    return Rows(log.lazy(), shape=Shape(Fields(), TimeRule()), keys=KeyFormat(), limit=limit)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--speed", "0x"], "'0x' is no speed, expected a number above 0, such as 10x"),
        (["--speed", "fast"], "'fast' is no speed"),
        (["--speed", "infx"], "'infx' is no speed"),
        (["--speed", "2x", "--rate", "5"], "--rate and --speed both say when interactions are sent"),
    ],
)
def test_a_pace_is_one_of_two(options: list[str], says: str) -> None:
    said = CliRunner().invoke(produce, ["log.csv", *options])
    assert said.exit_code == 2
    assert says in said.output


def test_how_long_it_takes_is_said_first(capsys: pytest.CaptureFixture[str]) -> None:
    _say_how_long(Pace(speed=10.0), rows(), 0)
    _say_how_long(Pace(rate=2.0), rows(), 0)
    _say_how_long(Pace(), rows(), 0)
    assert capsys.readouterr().err.splitlines() == [
        "2 interactions of 731 days take 73 days 2 hours",
        "2 interactions of 731 days take 0.5 seconds",
    ]


def test_a_file_names_one_run(tmp_path: Path) -> None:
    with closing(RunFile(tmp_path / "run")) as file:
        first = file.run(rows(), "in", "id")
        assert file.run(rows(), "in", "id") == first
        with pytest.raises(ProduceUnfit, match="another process sends the log of this run"):
            RunFile(tmp_path / "run")
        for other, topic, topic_id, what in (
            (rows(limit=1), "in", "id", "its log of so many interactions is 2, this one is 1"),
            (rows(LOG.with_columns(item_id=pl.lit(3))), "in", "id", "its log with this SHA-256 is"),
            (rows(LOG.with_columns(user_id=pl.lit("ann"))), "in", "id", "its log with this SHA-256 is"),
            (rows(), "other", "id", "its topic is in, this one is other"),
            (rows(), "in", "new", "its topic id is id, this one is new"),
        ):
            with pytest.raises(ProduceUnfit, match=what):
                file.run(other, topic, topic_id)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    with closing(RunFile(tmp_path / "other")) as file:
        assert file.run(rows(), "in", "id").id != first.id
        file.path.write_text("{}")
        with pytest.raises(ProduceUnfit, match="is no note of what was sent"):
            file.run(rows(), "in", "id")


def test_interactions_of_the_same_time_keep_the_order_of_the_log() -> None:
    log = pl.DataFrame({"user_id": ["ann"] * 3, "item_id": [3, 1, 2], "timestamp": [5, 5, 4]})
    assert rows(log).frame["item_id"].to_list() == [2, 3, 1]
    assert rows(log).sha256() != rows(log[::-1]).sha256()
