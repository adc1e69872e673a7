from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from model.errors import LogUnreadable
from model.log import in_time_order, read_log

FRAME = pl.DataFrame(
    {
        "user_id": ["u1", "u2", "u1"],
        "item_id": [7, 8, 9],
        "timestamp": [1_700_000_001_000, 1_700_000_000_000, 1_700_000_002_000],
        "rating": [5, 4, 3],
    }
)
WRITERS: dict[str, Callable[[pl.DataFrame, Path], None]] = {
    "parquet": pl.DataFrame.write_parquet,
    "csv": pl.DataFrame.write_csv,
    "jsonl": pl.DataFrame.write_ndjson,
    "ndjson": pl.DataFrame.write_ndjson,
    "json": pl.DataFrame.write_ndjson,
}


@pytest.mark.parametrize("ending", list(WRITERS))
def test_every_format_reads_the_same(tmp_path: Path, ending: str) -> None:
    WRITERS[ending](FRAME, tmp_path / f"log.{ending}")
    read = read_log(tmp_path / f"log.{ending}").collect()
    assert read.equals(FRAME.drop("rating"))
    assert read.schema["timestamp"] == pl.Int64


@pytest.mark.parametrize("source", ["", "/*.csv"])
def test_a_folder_and_a_glob_are_read_in_the_order_of_their_files(tmp_path: Path, source: str) -> None:
    for name, part in (("b", FRAME[2:]), ("a", FRAME[:2])):
        part.write_csv(tmp_path / f"{name}.csv")
    (tmp_path / "README").write_text("not part of it")
    assert read_log(str(tmp_path) + source).collect().equals(FRAME.drop("rating"))


def test_columns_can_be_called_anything(tmp_path: Path) -> None:
    FRAME.rename({"user_id": "who", "item_id": "what", "timestamp": "when"}).write_csv(tmp_path / "log.csv")
    assert read_log(tmp_path / "log.csv", "who", "what", "when").collect().equals(FRAME.drop("rating"))


@pytest.mark.parametrize("values", [["x", None, "y"], [1, None, 2], [None, None, "x"]])
def test_an_attribute_is_read_if_asked_for_and_may_be_missing(tmp_path: Path, values: list[Any]) -> None:
    FRAME.with_columns(genre=pl.Series(values)).write_csv(tmp_path / "log.csv")
    read = read_log(tmp_path / "log.csv", attribute_column="genre").collect()
    assert read["attribute"].to_list() == values
    assert read.drop("attribute").equals(read_log(tmp_path / "log.csv").collect())


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("kind", "no column 'kind'. The log has .*--attribute-column"),
        ("share", "column 'share' has type Float64. Attributes must be strings"),
    ],
)
def test_an_attribute_that_cannot_be_is_said(tmp_path: Path, column: str, message: str) -> None:
    FRAME.with_columns(share=0.5).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(LogUnreadable, match=message):
        read_log(tmp_path / "log.parquet", attribute_column=column)


@pytest.mark.parametrize(
    "timestamps",
    [
        pl.Series([1_700_000_001, 1_700_000_000, 1_700_000_002], dtype=pl.Int32),
        pl.Series([datetime(2023, 11, 14, 22, 13, 20 + s, tzinfo=UTC) for s in (1, 0, 2)]),
        pl.Series([datetime(2023, 11, 14, 22, 13, 20 + s) for s in (1, 0, 2)], dtype=pl.Datetime("ns")),  # noqa: DTZ001
    ],
    ids=["seconds", "with a time zone", "nanoseconds without one"],
)
def test_every_unit_of_time_becomes_milliseconds(tmp_path: Path, timestamps: pl.Series) -> None:
    FRAME.with_columns(timestamps.alias("timestamp")).write_parquet(tmp_path / "log.parquet")
    assert read_log(tmp_path / "log.parquet").collect()["timestamp"].to_list() == FRAME["timestamp"].to_list()


def test_a_datetime_in_a_csv_is_understood(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\na,1,2023-11-14 22:13:20\n")
    assert read_log(tmp_path / "log.csv").collect().row(0) == ("a", 1, 1_700_000_000_000)


def test_ids_that_turn_into_text_late_are_text_from_the_start(tmp_path: Path) -> None:
    lines = [f"{i},{i},1700000000" for i in range(2_000)] + ["late,x9,1700000000"]
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(lines))
    assert read_log(tmp_path / "log.csv").collect()["item_id"][[0, -1]].to_list() == ["0", "x9"]


def test_every_file_of_a_csv_log_decides_on_types(tmp_path: Path) -> None:
    for name, item, day in (("a", "7", 14), ("b", "x9", 15)):
        (tmp_path / f"{name}.csv").write_text(f"user_id,item_id,timestamp\n1,{item},2023-11-{day} 22:13:20\n")
    assert read_log(tmp_path).collect().rows() == [(1, "7", 1_700_000_000_000), (1, "x9", 1_700_086_400_000)]


def test_the_types_of_a_csv_log_are_inferred_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FRAME.write_csv(tmp_path / "log.csv")
    scan, asked = pl.scan_csv, []

    def watched(*files: Any, **how: Any) -> pl.LazyFrame:
        asked.append(how["infer_schema_length"])
        return scan(*files, **how)

    monkeypatch.setattr(pl, "scan_csv", watched)
    read_log(tmp_path / "log.csv").collect()
    assert asked == [None, 0]


def test_time_order_keeps_the_order_of_the_file_within_a_millisecond() -> None:
    log = pl.LazyFrame({"user_id": list(range(100_000)), "item_id": 1, "timestamp": [i % 3 for i in range(100_000)]})
    ordered = in_time_order(log).collect()
    assert ordered["timestamp"].is_sorted()
    for _, same in ordered.group_by("timestamp"):
        assert same["user_id"].is_sorted()


def _changed(**columns: list[Any]) -> Callable[[Path], None]:
    return lambda folder: FRAME.with_columns(**{k: pl.Series(v) for k, v in columns.items()}).write_parquet(
        folder / "log.parquet"
    )


def _text(name: str, content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(content)

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: None, "no such log"),
        (_text("log.csv", ""), "is empty"),
        (_text("log.jsonl", ""), "is empty"),
        (_text("log.csv", "user_id,item_id,timestamp\n"), "is empty: it has columns but no rows"),
        (_text("log.parquet", "not parquet, but long enough to look at"), "not readable as Parquet"),
        (_text("log.jsonl", "{broken\n"), "not readable as JSON lines"),
        (
            _text("log.csv", "user_id,movie,timestamp\na,1,1700000000\n"),
            "no column 'item_id'. The log has user_id, movie, timestamp.*--item-column",
        ),
        (
            _text("log.csv", "u,movie,t\na,1,2\n"),
            "no column 'user_id', 'item_id', 'timestamp'.*--user-column, --item-column, --timestamp-column",
        ),
        (
            _text("log.csv", "user_id,item_id,timestamp\na,,1700000000\nb,,1700000000\n,3,1700000000\n"),
            "1 in 'user_id', 2 in 'item_id', in 3 rows",
        ),
        (_changed(timestamp=[1.5, 2.5, 3.5]), "'timestamp' has type Float64. Expected integer epoch"),
        (_changed(timestamp=["a", "b", "c"]), "'timestamp' has type String"),
        (_changed(timestamp=[-1, 2, 3]), "has the value -1"),
        (_changed(timestamp=[1_700_000_000, 1_700_000_000_000, 1_700_000_000]), "mixes seconds and milliseconds"),
        (_changed(timestamp=[1_700_000_000_000_000] * 3), "finer than milliseconds"),
        (_changed(item_id=[1.0, 2.0, 3.0]), "'item_id' has type Float64. Ids must be strings or integers"),
    ],
)
def test_what_is_wrong_with_a_log_is_said(tmp_path: Path, write: Callable[[Path], None], message: str) -> None:
    write(tmp_path)
    with pytest.raises(LogUnreadable, match=message):
        read_log(tmp_path)


def test_files_of_several_formats_are_no_log(tmp_path: Path) -> None:
    FRAME.write_csv(tmp_path / "a.csv")
    FRAME.write_parquet(tmp_path / "b.parquet")
    with pytest.raises(LogUnreadable, match=r"several formats \(CSV, Parquet\)"):
        read_log(tmp_path)


def test_a_file_of_an_unknown_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.xlsx").write_text("x")
    with pytest.raises(LogUnreadable, match=r"unknown format '\.xlsx'"):
        read_log(tmp_path / "log.xlsx")
