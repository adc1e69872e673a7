import gzip
import os
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
        ("share", "row 1: 'share' is a float, expected text or an integer: 0.5"),
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
        (_text("log.csv", "\n\n\n"), "is empty|no column"),
        (_text("log.parquet", "not parquet, but long enough to look at"), "no column 'user_id'"),
        (_text("log.parquet", "PAR1, and then nothing"), "is damaged or cut short"),
        (_text("log.jsonl", "{broken\n"), r"log.jsonl, line 1: is not JSON: Expecting"),
        (_text("log.jsonl", '{"user_id": 1}\n[1]\n'), r"line 2: is a JSON array, expected one object a line"),
        (_text("log.json", '[{"user_id": 1}]'), r"is a JSON array. Expected one object a line: `jq -c"),
        (
            _text("log.csv", "user_id,movie,timestamp\na,1,1700000000\n"),
            "no column 'item_id'. The log has user_id, movie, timestamp .*--item-column",
        ),
        (
            _text("log.csv", "u,movie,t\na,1,2\n"),
            "no column 'user_id', 'item_id', 'timestamp'.*--user-column, --item-column, --timestamp-column",
        ),
        (
            _text("log.jsonl", '{"u": 1, "movie": {"id": 2}}\n'),
            "no column 'user_id', 'item_id', 'timestamp'. The log has u, movie.*--user-column",
        ),
        (
            _text("log.csv", "user_id,item_id,timestamp\na,1,1700000000\nb,,1700000000\n,3,1700000000\n"),
            "log.csv, line 3: has no value in 'item_id'",
        ),
        (
            _text("log.csv", "user_id,item_id,timestamp\na,1,1700000000\nb,2,1700000000,7\n"),
            "log.csv, line 3: has 4 fields, expected 3",
        ),
        (
            _text("log.csv", 'user_id,item_id,timestamp\na,1,1700000000\n"b,2,1700000000\nc,3,1700000000\n'),
            "log.csv, line 3: has a quote or a carriage return where none can be",
        ),
        (
            _text("log.csv", "user_id,item_id,user_id,timestamp\na,1,b,1700000000\n"),
            "2 columns have the name 'user_id'",
        ),
        (_text("log.csv", "1,2,3,4\n"), "has no header, and 4 columns.*Give the number, from 1, of the column"),
        (_changed(timestamp=[1.5, 2.5, 3.5]), "row 1: 'timestamp' is 1970-01-01, expected a time from 1990-01-01.*1.5"),
        (_changed(timestamp=["a", "b", "c"]), "'timestamp' is text that is neither a number nor ISO 8601: 'a'"),
        (
            _changed(timestamp=[1_700_000_000, -1, 3]),
            "row 2: 'timestamp' is 1969-12-31.*: -1.*--time-unit.*--time-range",
        ),
        (_changed(timestamp=[None, 1, 2]), "row 1: has no value in 'timestamp'"),
        (_changed(item_id=[7, None, 9]), "row 2: has no value in 'item_id'"),
        (
            _changed(item_id=[1.0, 2.0, 3.0]),
            "row 1: 'item_id' is a float, .*: 1.0. If such ids are integers, say --id-type",
        ),
        (_changed(item_id=[True, False, True]), "row 1: 'item_id' is true or false"),
        (_changed(item_id=[[1], [2], [3]]), "row 1: 'item_id' is a list"),
        (_changed(item_id=["a", "", "b"]), "row 2: 'item_id' is empty"),
        (_changed(user_id=["a", "x" * 256, "b"]), "row 2: 'user_id' has 256 bytes, expected at most 255: 'x{60}'…"),
        (_changed(user_id=[b"a", b"b", b"c"]), "row 1: 'user_id' is binary.*--id-type text"),
        (_text("log.csv", "user_id,item_id,timestamp\na\0,1,1700000000\n"), "line 2: has a zero byte"),
    ],
)
def test_what_is_wrong_with_a_log_is_said(tmp_path: Path, write: Callable[[Path], None], message: str) -> None:
    write(tmp_path)
    with pytest.raises(LogUnreadable, match=message) as refused:
        read_log(tmp_path)
    assert len(str(refused.value)) < 1000
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("times", "said"),
    [([5, 1_700_000_000], "FROM..UNTIL"), ([5, 1_700_000_000, 6, 7], r"\. At least 2 more like it: 3 of 4 rows")],
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_refused_rows_are_counted(tmp_path: Path, ending: str, times: list[int], said: str) -> None:
    frame = pl.DataFrame({"user_id": 1, "item_id": 2, "timestamp": times})
    WRITERS[ending](frame, tmp_path / f"log.{ending}")
    with pytest.raises(LogUnreadable, match=f"(line 2|row 1): 'timestamp' is 1970-01-01, .*{said}$"):
        read_log(tmp_path)


def test_files_of_several_formats_are_no_log(tmp_path: Path) -> None:
    FRAME.write_csv(tmp_path / "a.csv")
    FRAME.write_parquet(tmp_path / "b.parquet")
    with pytest.raises(LogUnreadable, match=r"several formats: .*b\.parquet is Parquet, .*a\.csv is separated text"):
        read_log(tmp_path)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"PK\x03\x04", "is a ZIP archive or a spreadsheet"),
        (b"\x28\xb5\x2f\xfd", "is zstd, which is not read here: decompress it first"),
        (b"Obj\x01", "is Avro. Expected Parquet, CSV"),
        (b"\x1f\x8b\x08\x00", "cannot be read: the compressed data is cut short or damaged"),
        (b"\x89PNG\r\n\x1a\n\0\0", "no column|zero byte"),
        (bytes(range(128, 256)), "no column|zero byte"),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, head: bytes, message: str) -> None:
    (tmp_path / "log.csv").write_bytes(head)
    with pytest.raises(LogUnreadable, match=message):
        read_log(tmp_path / "log.csv")


def test_a_log_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LogUnreadable, match=r"is neither a file nor a folder. Write the log to a file first"):
        read_log(tmp_path / "pipe")
    with pytest.raises(LogUnreadable, match=r"'.*\\x1b\[31m\.csv': no such log"):
        read_log(tmp_path / "\x1b[31m.csv")
    with pytest.raises(LogUnreadable, match=r"cannot be read|no such log"):
        read_log("a\0b")


def test_a_damaged_end_of_a_compressed_file_is_said_with_the_line(tmp_path: Path) -> None:
    text = "user_id,item_id,timestamp\n" + "".join(f"u{n},{n * n},17000{n:05}\n" for n in range(50_000))
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(text.encode())[:-2000])
    with pytest.raises(LogUnreadable, match=r"log\.csv\.gz: cannot be read after line \d+: damaged or cut short"):
        read_log(tmp_path / "log.csv.gz")
