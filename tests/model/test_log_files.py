"""Files as people have them: separators, encodings, parts, ids and times read the same from all of them."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from model.errors import LogUnreadable
from model.ids import HIGHEST, IdType
from model.log import Columns, facts, open_log
from model.times import TimeRule

ROWS = [("ü1", "00022", 978300760000), ("u2", "7", 978302109000), ("ü1", "x9", 978301968123)]
TIMES = ["2000-12-31T22:12:40Z", "2000-12-31 22:35:09", "978301968.123"]


def _lines(separator: str, header: tuple[str, ...] | None = ("user_id", "item_id", "rating", "timestamp")) -> str:
    rows = [(user, item, "5", time) for (user, item, _), time in zip(ROWS, TIMES, strict=True)]
    return "".join(separator.join(row) + "\n" for row in ([header] if header else []) + rows)


def _rows(path: Path | str, columns: Columns | None = None, **how: Any) -> list[tuple[Any, ...]]:
    return open_log(path, columns, **how).interactions.collect().rows()


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "::"])
@pytest.mark.parametrize("header", [("user_id", "item_id", "rating", "timestamp"), None])
def test_separators_are_found_out(tmp_path: Path, separator: str, header: tuple[str, ...] | None) -> None:
    (tmp_path / "log.txt").write_text(_lines(separator, header))
    assert _rows(tmp_path / "log.txt") == ROWS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_compression_and_line_ends_are_found_out(
    tmp_path: Path, encoding: str, compress: Callable[[bytes], bytes], newline: str
) -> None:
    (tmp_path / "log.csv").write_bytes(compress(_lines(",").replace("\n", newline).encode(encoding)))
    log = open_log(tmp_path / "log.csv")
    assert log.interactions.collect().rows() == ROWS
    said = [f"{tmp_path / 'log.csv'} is not UTF-8 (line 2), and was read as Latin-1"]
    assert list(log.notes) == (said if encoding == "latin-1" else [])


def test_json_lines_may_be_nested_and_compressed(tmp_path: Path) -> None:
    lines = [
        '{"user": {"id": "ü1"}, "product": {"id": "00022", "x": NaN}, "at": "2000-12-31T22:12:40Z"}',
        "",
        '{"user": {"id": "u2"}, "product": {"id": 7}, "at": 978302109}',
        '{"user": {"id": "ü1"}, "product": {"id": "x9"}, "at": 978301968.123}',
    ]
    (tmp_path / "log.json.gz").write_bytes(gzip.compress("\n".join(lines).encode("utf-16")))
    assert _rows(tmp_path / "log.json.gz", Columns("user.id", "product.id", "at")) == ROWS


def test_a_column_with_the_whole_path_as_its_name_comes_first(tmp_path: Path) -> None:
    row = {"user_id": "u", "product": {"id": "inner"}, "product.id": "outer", "timestamp": 978300760}
    pl.DataFrame([row]).write_parquet(tmp_path / "log.parquet")
    pl.DataFrame([row]).write_ndjson(tmp_path / "log.jsonl")
    pl.DataFrame([row]).drop("product").write_csv(tmp_path / "log.csv")
    for name in ("log.parquet", "log.jsonl", "log.csv"):
        assert _rows(tmp_path / name, Columns(item="product.id")) == [("u", "outer", 978300760000)]
    pl.DataFrame([row]).drop("product.id").write_parquet(tmp_path / "log.parquet")
    assert _rows(tmp_path / "log.parquet", Columns(item="product.id")) == [("u", "inner", 978300760000)]
    with pytest.raises(LogUnreadable, match=r"no column 'product.name'. The log has user_id, product.id, timestamp"):
        open_log(tmp_path / "log.parquet", Columns(item="product.name"))


def test_the_types_in_the_header_of_recbole_are_no_part_of_the_names(tmp_path: Path) -> None:
    header = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
    (tmp_path / "log.inter").write_text(_lines("\t", header))
    assert _rows(tmp_path / "log.inter") == ROWS


def test_columns_of_a_file_without_a_header_have_numbers(tmp_path: Path) -> None:
    text = "".join(f"{item},5,{user},{time // 1000}\n" for user, item, time in ROWS[:2])
    (tmp_path / "log.csv").write_text(text)
    log = open_log(tmp_path / "log.csv", Columns("3", "1", "4"))
    assert log.interactions.collect().rows() == ROWS[:2]
    assert log.notes == (
        f"{tmp_path / 'log.csv'} has no header: of its 4 columns, 3 is user_id, 1 is item_id, 4 is timestamp",
        "ids such as '00022' in '1' are text, not 22: --id-type integer reads them as numbers",
    )


def test_parts_are_read_with_their_folders_as_columns(tmp_path: Path) -> None:
    for day, rows in (("2024-01-02", [("b", 2)]), ("2024-01-01", [("a", 1)])):
        folder = tmp_path / f"day={day}" / "kind=view%20it"
        folder.mkdir(parents=True)
        pl.DataFrame(rows, ["user_id", "item_id"], orient="row").write_parquet(folder / "part-0.parquet")
        (folder / "._part-0.parquet.crc").write_bytes(b"x")
        (folder / "part-1.parquet").touch()
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "_temporary").mkdir()
    (tmp_path / "_temporary" / "half.parquet").write_bytes(b"PAR1")
    (tmp_path / "README").write_text("a description")
    expected = [("a", 1, 1_704_067_200_000), ("b", 2, 1_704_153_600_000)]
    assert _rows(tmp_path, Columns(timestamp="day")) == expected
    assert _rows(f"{tmp_path}/day=2024-01-0[12]", Columns(timestamp="day")) == expected
    assert _rows(tmp_path, Columns(timestamp="day", event="kind"), events=["view it"]) == [
        (*row, "view it") for row in expected
    ]


def test_parts_without_an_ending_and_with_one_header_are_a_log(tmp_path: Path) -> None:
    lines = _lines(",").splitlines(keepends=True)
    for number, part in enumerate((lines[:2], lines[2:])):
        (tmp_path / f"part-{number:05}").write_text("".join(part))
    assert _rows(tmp_path) == ROWS


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], []),
        (["_SUCCESS", ".part-0.crc"], []),
        (["b.gz"], ["1 file of the folder is passed over: b.gz"]),
        (
            ["b.csv.1", "part-00000", "a\x1b[31m", "deep.zip"],
            ["4 files of the folder are passed over: 'a\\x1b[31m', b.csv.1, deep.zip, …"],
        ),
    ],
)
@pytest.mark.parametrize("source", ["", "*"])
def test_files_of_a_folder_that_are_passed_over_are_said(
    tmp_path: Path, source: str, names: list[str], said: list[str]
) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    for name in ["log.csv", *names]:
        (folder / name).write_text(_lines(","))
    log = open_log(tmp_path / source if source else folder)
    assert list(log.notes) == said
    assert log.rows == len(ROWS)


def test_a_folder_without_a_log_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "b.csv.1").write_text(_lines(","))
    with pytest.raises(
        LogUnreadable, match=r"the folder has 1 file, none with an ending of a log \(.*\.csv.*: b\.csv\.1\."
    ):
        open_log(tmp_path)
    (tmp_path / "c.gz").write_text(_lines(","))
    with pytest.raises(LogUnreadable, match=r"the folder has 2 files, none with an ending .*: b\.csv\.1, c\.gz\. Name"):
        open_log(tmp_path)


def test_parts_may_have_integers_of_several_sizes_and_categories(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": ["a", "b"], "item_id": [1, 2], "timestamp": [978300760, 978300761]})
    types: list[dict[str, Any]] = [
        {"item_id": pl.Int32, "timestamp": pl.Int32},
        {"item_id": pl.UInt16, "timestamp": pl.Float64},
        {"user_id": pl.Categorical, "timestamp": pl.UInt64},
        {"user_id": pl.Enum(["b", "a"]), "item_id": pl.Decimal(20, 0)},
        {"timestamp": pl.Decimal(20, 3)},
    ]
    for number, dtypes in enumerate(types):
        frame.cast(dtypes).write_parquet(tmp_path / f"{number}.parquet")
    assert _rows(tmp_path) == [("a", 1, 978300760000), ("b", 2, 978300761000)] * len(types)
    # One part with text makes the items of all parts text. It is the same item: an integer is its decimal text.
    frame.cast({"item_id": pl.String}).write_parquet(tmp_path / "9.parquet")
    assert _rows(tmp_path)[0] == ("a", "1", 978300760000)


WRITERS: dict[str, Callable[[pl.DataFrame, Path], None]] = {
    "parquet": pl.DataFrame.write_parquet,
    "csv": pl.DataFrame.write_csv,
    "jsonl": pl.DataFrame.write_ndjson,
}


@pytest.mark.parametrize("ending", list(WRITERS))
@pytest.mark.parametrize(
    "times",
    [
        ["2024-01-01T12:00:00Z", "2024-01-01T14:00:00.5+02:00"],
        ["2024-01-01 12:00:00", "2024-01-01 12:00:00.500"],
        ["1704110400", "1704110400.5"],
        [1704110400.0, 1704110400.5],
        [1704110400000, 1704110400500],
        [1704110400000000, 1704110400500000],
        [1704110400000000000, 1704110400500000000],
        [datetime(2024, 1, 1, 12, tzinfo=UTC), datetime(2024, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)],
        [datetime(2024, 1, 1, 12), datetime(2024, 1, 1, 12, 0, 0, 500_000)],  # noqa: DTZ001  without a zone, it is UTC
    ],
)
def test_a_time_is_the_same_in_every_format(tmp_path: Path, ending: str, times: list[Any]) -> None:
    frame = pl.DataFrame({"user_id": [1, 1], "item_id": [1, 1], "timestamp": times})
    WRITERS[ending](frame, tmp_path / f"log.{ending}")
    assert _rows(tmp_path) == [(1, 1, 1704110400000), (1, 1, 1704110400500)]


def test_times_of_several_kinds_may_be_in_one_column(tmp_path: Path) -> None:
    times = ["1704110400", "1704110400.5", '"2024-01-01T12:00:00Z"', '"1704110400500000"']
    expected = [(1, 1, 1704110400000), (1, 1, 1704110400500)] * 2
    (tmp_path / "a.jsonl").write_text("".join(f'{{"user_id": 1, "item_id": 1, "timestamp": {t}}}\n' for t in times))
    assert _rows(tmp_path / "a.jsonl") == expected
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\n" + "".join(f"1,1,{t}\n" for t in times))
    assert _rows(tmp_path / "a.csv") == expected


@pytest.mark.parametrize("ending", list(WRITERS))
def test_a_date_is_its_midnight_in_every_format(tmp_path: Path, ending: str) -> None:
    WRITERS[ending](
        pl.DataFrame({"user_id": [1], "item_id": [1], "timestamp": [date(2024, 1, 1)]}), tmp_path / f"l.{ending}"
    )
    assert _rows(tmp_path) == [(1, 1, 1704067200000)]


@pytest.mark.parametrize(
    ("text", "id_type", "expected"),
    [
        ("7 00022", None, ["7", "00022"]),
        ("7 22", None, [7, 22]),
        ("7 22", "text", ["7", "22"]),
        ("7 00022", "integer", [7, 22]),
        ("7.0 22.0", None, ["7.0", "22.0"]),
        ("7.0 22.0", "integer", [7, 22]),
        ("a 007", "integer", ["a", "7"]),
        (f"0 {HIGHEST}", None, [0, HIGHEST]),
        (f"-1 {HIGHEST}", None, ["-1", str(HIGHEST)]),
        ("0 1000000000000000000000", None, ["0", "1000000000000000000000"]),
        ("-7 0", None, [-7, 0]),
        ("7 x9", None, ["7", "x9"]),
        ("NA 7", None, ["NA", "7"]),
        ("true false", None, ["true", "false"]),
        ("2024-01-01 2024-01-02", None, ["2024-01-01", "2024-01-02"]),
        ("1e5 7", None, ["1e5", "7"]),
    ],
)
def test_ids_in_separated_text_are_names(
    tmp_path: Path, text: str, id_type: IdType | None, expected: list[Any]
) -> None:
    lines = "".join(f"u{number},{item},978300760\n" for number, item in enumerate(text.split()))
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + lines)
    assert [row[1] for row in _rows(tmp_path, id_type=id_type)] == expected


_PADDED = "ids such as {!r} in 'item_id' are text, not {}: --id-type integer reads them as numbers"
_ABSENT = "{!r} in 'item_id' is an id as any other. If it means none, leave out its rows"


@pytest.mark.parametrize(
    ("text", "id_type", "said"),
    [
        ("7 22", None, []),
        ("7 00022", None, [_PADDED.format("00022", 22)]),
        ("00022 7", None, [_PADDED.format("00022", 22)]),
        ("22.0 7.0", None, [_PADDED.format("22.0", 22)]),
        ("7.5 22.0", None, []),
        ("a 00022", None, []),
        ("00022 a", None, []),
        ("0000000000000000000000000000001 7", None, [_PADDED.format("0000000000000000000000000000001", 1)]),
        ("000000099999999999999999999 7", None, []),
        ("7 00022", "text", []),
        ("7 00022", "integer", []),
        ("7 NULL", None, [_ABSENT.format("NULL")]),
        ("nan 7", "text", [_ABSENT.format("nan")]),
        ("N/A None", "integer", [_ABSENT.format("N/A")]),
        ("\\N x", None, [_ABSENT.format("\\N")]),
        ("NA x", None, []),
    ],
)
@pytest.mark.parametrize("files", [1, 2])
def test_ids_that_may_be_meant_otherwise_are_said(
    tmp_path: Path, files: int, text: str, id_type: IdType | None, said: list[str]
) -> None:
    rows = [f"u{number},{item},978300760\n" for number, item in enumerate(text.split())]
    for number in range(files):
        lines = "".join(rows[number::files])
        (tmp_path / f"{number}.csv").write_text("user_id,item_id,timestamp\n" + lines)
    assert list(open_log(tmp_path, id_type=id_type).notes) == said


def test_absent_ids_are_said_in_every_format_and_padded_ones_only_of_separated_text(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": ["007", "08"], "item_id": ["nan", "7"], "timestamp": [978300760, 978300761]})
    for ending in ("parquet", "jsonl"):
        WRITERS[ending](frame, tmp_path / f"log.{ending}")
        assert [*open_log(tmp_path / f"log.{ending}").notes] == [_ABSENT.format("nan")]


def test_one_text_in_a_late_part_makes_every_id_of_separated_text_a_text(tmp_path: Path) -> None:
    for name, item in (("a", "7"), ("b", "00022")):
        (tmp_path / f"{name}.csv").write_text(f"user_id,item_id,timestamp\n1,{item},978300760\n")
    assert _rows(tmp_path) == [(1, "7", 978300760000), (1, "00022", 978300760000)]


@pytest.mark.parametrize(
    ("items", "id_type", "expected"),
    [
        ("7 22", None, [7, 22]),
        ('"7" "22"', None, ["7", "22"]),
        ('7 "22"', None, ["7", "22"]),
        ('7 "00022"', "integer", [7, 22]),
        ("7.0 22", "integer", [7, 22]),
        (f"0 {HIGHEST}", None, [0, HIGHEST]),
        (f"-1 {HIGHEST}", None, ["-1", str(HIGHEST)]),
        ('"\\ud83d\\ude00" 1', None, ["😀", "1"]),
    ],
)
def test_ids_in_json_are_what_json_says(
    tmp_path: Path, items: str, id_type: IdType | None, expected: list[Any]
) -> None:
    lines = "".join(f'{{"user_id": 1, "item_id": {item}, "timestamp": 978300760}}\n' for item in items.split())
    (tmp_path / "log.jsonl").write_text(lines)
    assert [row[1] for row in _rows(tmp_path, id_type=id_type)] == expected


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (
            "7.0",
            "line 2: 'item_id' is a float, expected text or an integer: 7.0. If such ids are integers, say --id-type integer",
        ),
        ("true", "line 2: 'item_id' is true or false"),
        ("null", "line 2: has no value in 'item_id'"),
        ('""', "line 2: 'item_id' is empty"),
        ("[1]", "line 2: 'item_id' is a list"),
        ("1" * 22, "line 2: 'item_id' is an integer of 70 bits"),
        ("9" * 5000, "line 2: is not JSON: a number in it is too long"),
        ('"\\ud800"', "line 2: 'item_id' is text that UTF-8 does not have"),
        ('"' + "x" * 1_000_000 + '"', "line 2: 'item_id' has 1000000 bytes, expected at most 255: 'x{60}'…"),
        ('"\\u001b[31m' + "x" * 300 + '"', r"line 2: .*'\\x1b\[31mxxx"),
    ],
)
def test_what_a_worker_refuses_is_refused_with_its_line(tmp_path: Path, item: str, said: str) -> None:
    lines = "".join(f'{{"user_id": 1, "item_id": {each}, "timestamp": 978300760}}\n' for each in ("1", item))
    (tmp_path / "log.jsonl").write_text(lines)
    with pytest.raises(LogUnreadable, match=said) as refused:
        open_log(tmp_path)
    assert len(str(refused.value)) < 600
    assert str(refused.value).isprintable()


def test_binary_and_floats_in_parquet_are_ids_if_a_user_says_so(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": [b"caf\xc3\xa9"], "item_id": [7.0], "timestamp": [978300760]})
    frame.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(LogUnreadable, match=r"'user_id' is binary, .*: b'caf.*--id-type text"):
        open_log(tmp_path)
    frame.with_columns(item_id=7).write_parquet(tmp_path / "log.parquet")
    assert _rows(tmp_path, id_type="text") == [("café", "7", 978300760000)]
    frame.with_columns(user_id=1).write_parquet(tmp_path / "log.parquet")
    assert _rows(tmp_path, id_type="integer") == [(1, 7, 978300760000)]
    frame.with_columns(user_id=1, item_id=pl.lit(Decimal("7.50"))).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(LogUnreadable, match="'item_id' is a decimal number"):
        open_log(tmp_path, id_type="integer")


@pytest.mark.parametrize("ending", list(WRITERS))
def test_only_wanted_events_are_read_and_the_others_may_lack_everything(tmp_path: Path, ending: str) -> None:
    frame = pl.DataFrame(
        {
            "user_id": [1, 1, None, 2, 2],
            "item_id": [7, 8, None, 9, 7],
            "timestamp": [978300760, 978300760, None, 978300761, 5],
            "type": ["view", "purchase", "login", "view", "logout"],
        }
    )
    WRITERS[ending](frame, tmp_path / f"log.{ending}")
    log = open_log(tmp_path, Columns(event="type"), events=["view", "purchase"])
    assert log.interactions.collect().rows() == [
        (1, 7, 978300760000, "view"),
        (1, 8, 978300760000, "purchase"),
        (2, 9, 978300761000, "view"),
    ]
    assert facts(log) == [
        "2 rows with other events passed over; 3 interactions are left",
        "times are seconds, by their size: --time-unit s states it",
        "66.7% of the interactions have the same time as another one of their user. They keep the order of the log",
    ]
    with pytest.raises(
        LogUnreadable, match=r"none of its 5 rows has one of the events click. It has login, logout, purchase, view"
    ):
        open_log(tmp_path, Columns(event="type"), events=["click"])


@pytest.mark.parametrize("ending", list(WRITERS))
def test_a_row_without_an_event_is_refused_as_a_worker_refuses_its_record(tmp_path: Path, ending: str) -> None:
    frame = pl.DataFrame(
        {
            "user_id": [1, 1, None],
            "item_id": [7, 8, None],
            "timestamp": [978300760, 978300761, None],
            "type": ["view", "login", None],
        }
    )
    WRITERS[ending](frame, tmp_path / f"log.{ending}")
    with pytest.raises(LogUnreadable, match=r"(row 3|line [34]): has no event in 'type'\..*Correct the row"):
        open_log(tmp_path, Columns(event="type"), events=["view"])


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ("", "line 2: has no event in 'kind'"),
        (', "kind": null', "line 2: has no event in 'kind'"),
        (', "kind": true', "line 2: 'kind' is bool, expected the kind of the event as text: True"),
        (', "kind": 1.5', "line 2: 'kind' is float, expected the kind of the event as text: 1.5"),
        (', "kind": [1]', "line 2: 'kind' is list, expected the kind of the event as text: list"),
    ],
)
@pytest.mark.parametrize("first", ['"view"', "7"])
def test_an_event_that_is_none_is_refused_in_json_lines(tmp_path: Path, first: str, event: str, said: str) -> None:
    row = '{"user_id": "a", "item_id": 7, "timestamp": 978300760'
    (tmp_path / "log.jsonl").write_text(f'{row}, "kind": {first}}}\n{row}{event}}}\n')
    with pytest.raises(LogUnreadable, match=said):
        open_log(tmp_path, Columns(event="kind"), events=["view", "7"])


def test_units_are_counted_if_there_are_several(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        "user_id,item_id,timestamp\n1,1,978300760\n2,1,978300760000\n3,1,978300760000\n4,1,2001-01-01\n5,1,978300760000000000\n"
    )
    log = open_log(tmp_path)
    assert log.units == {"s": 1, "ms": 2, "ns": 1}
    (said,) = facts(log)
    assert said.startswith("times are numbers of several units: 1 in seconds, 2 in milliseconds, 1 in nanoseconds.")
    with pytest.raises(LogUnreadable, match="line 2: 'timestamp' is 1970-01-12, expected a time from 1990-01-01"):
        open_log(tmp_path, times=TimeRule("ms"))


def test_a_range_of_times_may_be_stated(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n1,1,5\n1,2,99999999999\n")
    assert _rows(tmp_path, times=TimeRule("s", 0, 10**15)) == [(1, 1, 5000), (1, 2, 99999999999000)]


def test_a_file_that_mixes_encodings_is_refused_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes("user_id,item_id,timestamp\né,1,978300760\n".encode() + b"\xe9,1,978300760\n")
    with pytest.raises(LogUnreadable, match=r"log\.csv, line 3: is not UTF-8, though other lines are"):
        open_log(tmp_path)


def test_a_row_keeps_its_place_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.log.text.TextFile.blocks.__defaults__", (40,))
    lines = [f'u{n},"{n}",97830{n:04}' if n % 3 else f"u{n},{n},97830{n:04}" for n in range(200)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    assert _rows(tmp_path) == [(f"u{n}", n, int(f"97830{n:04}") * 1000) for n in range(200)]
    lines[150] = 'u150,"",978300000'
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    with pytest.raises(LogUnreadable, match=r"log\.csv, line 152: "):
        open_log(tmp_path)
