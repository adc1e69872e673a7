"""Logs as others publish them: read as they are, or with the columns named."""

import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from model.errors import LogUnreadable
from model.log import Columns, facts, open_log
from model.times import TimeRule

MS = 978_300_760_000
"""2000-12-31 22:12:40."""

PUBLISHED: dict[str, tuple[str, str, Columns, list[tuple[Any, Any, int]]]] = {
    "MovieLens-1M": (
        "ratings.dat",
        "1::1193::5::978300760\n2::661::3::978300761\n",
        Columns(),
        [(1, 1193, MS), (2, 661, MS + 1000)],
    ),
    "MovieLens-100K": ("u.data", "1\t242\t3\t978300760\n", Columns(), [(1, 242, MS)]),
    "MovieLens-20M": (
        "ratings.csv",
        "userId,movieId,rating,timestamp\n1,2,3.5,978300760\n",
        Columns("userId", "movieId"),
        [(1, 2, MS)],
    ),
    "RecBole": (
        "ml.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t242\t3\t978300760.0\n",
        Columns(),
        [(1, 242, MS)],
    ),
    "RetailRocket": (
        "events.csv",
        "timestamp,visitorid,event,itemid,transactionid\n978300760000,257597,view,355908,\n978300760001,257597,addtocart,7,\n",
        Columns("visitorid", "itemid", "timestamp", event="event"),
        [(257597, 355908, MS)],
    ),
    "Amazon 2014, ratings": (
        "ratings_Books.csv",
        "A00100,0000031887,5.0,978300760\n",
        Columns(),
        [("A00100", "0000031887", MS)],
    ),
    "Amazon 2018, ratings": (
        "Books.csv",
        "0001713353,A1C6M8LCIX4M6M,5.0,978300760\n",
        Columns("2", "1", "4"),
        [("A1C6M8LCIX4M6M", "0001713353", MS)],
    ),
    "Amazon 2018, reviews": (
        "Books_5.json",
        '{"overall": 5.0, "reviewerID": "A2SUAM1J3GNN3B", "asin": "0000013714", "unixReviewTime": 978300760}\n',
        Columns("reviewerID", "asin", "unixReviewTime"),
        [("A2SUAM1J3GNN3B", "0000013714", MS)],
    ),
    "Amazon 2023": (
        "Books.csv",
        "user_id,parent_asin,rating,timestamp\nAGKASBHYZPGTEPO6LWZPVJWB2BVA,0007410360,4.0,978300760000\n",
        Columns(item="parent_asin"),
        [("AGKASBHYZPGTEPO6LWZPVJWB2BVA", "0007410360", MS)],
    ),
    "RecTools": (
        "interactions.csv",
        "user_id,item_id,weight,datetime\n007,042,1.5,2000-12-31 22:12:40\n",
        Columns(),
        [("007", "042", MS)],
    ),
}


@pytest.mark.parametrize(("name", "text", "columns", "rows"), PUBLISHED.values(), ids=PUBLISHED)
@pytest.mark.parametrize("compressed", [False, True])
def test_published_logs_are_read(
    tmp_path: Path, name: str, text: str, columns: Columns, rows: list[tuple[Any, Any, int]], compressed: bool
) -> None:
    path = tmp_path / (f"{name}.gz" if compressed else name)
    path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    found = open_log(path, columns, events=["view"] if columns.event else []).interactions.collect()
    assert found.select("user_id", "item_id", "timestamp").rows() == rows


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "jsonl"])
@pytest.mark.parametrize("other", [None, "weight", "rating", "event"])
@pytest.mark.parametrize("time", ["timestamp", "datetime"])
def test_times_may_be_in_a_column_datetime_and_other_columns_are_ignored(
    tmp_path: Path, ending: str, other: str | None, time: str
) -> None:
    frame = pl.DataFrame({"user_id": ["007", "ann"], "item_id": ["00022", "x"]})
    frame = frame.with_columns(pl.Series(time, [datetime(2000, 12, 31, 22, 12, 40, tzinfo=UTC)] * 2))
    if other is not None:
        frame = frame.with_columns(pl.Series(other, ["view", "2"]))
    path = tmp_path / f"log.{ending}"
    match ending:
        case "parquet":
            frame.write_parquet(path)
        case "jsonl":
            frame.write_ndjson(path)
        case _:
            frame.write_csv(path, separator="," if ending == "csv" else "\t")
    log = open_log(path)
    assert log.interactions.collect().rows() == [("007", "00022", MS), ("ann", "x", MS)]
    said = ["times are in the column 'datetime', because there is no 'timestamp'"]
    assert facts(log)[: len(said)] == said if time == "datetime" else not log.chosen


def test_a_column_datetime_is_not_read_beside_timestamp_or_if_another_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        "user_id,item_id,datetime,timestamp,at\na,1,2024-01-01,978300760,2000-12-31 22:12:41\n"
    )
    assert open_log(tmp_path / "log.csv").interactions.collect().rows() == [("a", 1, MS)]
    assert open_log(tmp_path / "log.csv", Columns(timestamp="at")).interactions.collect().rows() == [
        ("a", 1, MS + 1000)
    ]
    (tmp_path / "log.csv").write_text("user_id,item_id,datetime\na,1,2024-01-01\n")
    with pytest.raises(LogUnreadable, match="no column 'when'"):
        open_log(tmp_path / "log.csv", Columns(timestamp="when"))


SECONDS, MICROSECONDS, ISO = "978300760", "978300760000000", "2000-12-31T22:12:40Z"
AGREES: dict[str, tuple[str, str | None, str | None]] = {
    "seconds are found": (SECONDS, None, "times are seconds, by their size: --time-unit s states it"),
    "milliseconds are found": (str(MS), None, "times are milliseconds, by their size: --time-unit ms states it"),
    "microseconds are found": (MICROSECONDS, None, "times are microseconds, by their size: --time-unit us states it"),
    "dates have no unit": (ISO, None, None),
    "seconds are stated": (SECONDS, "s", None),
    "milliseconds are stated": (str(MS), "ms", None),
    "microseconds are stated": (MICROSECONDS, "us", None),
    "dates are stated": (ISO, "iso", None),
}
DIFFERS: dict[str, tuple[str, str, str]] = {
    "seconds for ms": (
        SECONDS,
        "ms",
        r"is 1970-01-12, .*978300760.*By its size it is 2000-12-31, in another unit than milliseconds",
    ),
    "ms for seconds": (
        str(MS),
        "s",
        "By its size it is 2000-12-31, in another unit than seconds, which --time-unit states",
    ),
    "us for ms": (MICROSECONDS, "ms", "By its size it is 2000-12-31, in another unit than milliseconds"),
    "seconds for dates": (SECONDS, "iso", "is a number, expected ISO 8601 text: the unit of time is stated as iso"),
    "a float for dates": ("978300760.5", "iso", "is a number, expected ISO 8601 text"),
    "no time at all": ("5", "s", "is 1970-01-01, expected a time from 1990-01-01 .* If it is right, state the unit"),
}


def _as(ending: str, value: str, folder: Path) -> Path:
    """A log of one row with this time: as text, or as a number where the format has numbers."""
    path = folder / f"log.{ending}"
    number: Any = value if value == ISO else float(value) if "." in value else int(value)
    match ending:
        case "csv":
            path.write_text(f"user_id,item_id,timestamp\nu,1,{value}\n")
        case "jsonl":
            pl.DataFrame({"user_id": ["u"], "item_id": [1], "timestamp": [number]}).write_ndjson(path)
        case _:
            pl.DataFrame({"user_id": ["u"], "item_id": [1], "timestamp": [number]}).write_parquet(path)
    return path


@pytest.mark.parametrize(("value", "unit", "said"), AGREES.values(), ids=AGREES)
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_unit_that_is_found_is_said(tmp_path: Path, ending: str, value: str, unit: Any, said: str | None) -> None:
    log = open_log(_as(ending, value, tmp_path), times=TimeRule(unit))
    assert log.interactions.collect().rows() == [("u", 1, MS)]
    assert facts(log) == ([] if said is None else [said])


@pytest.mark.parametrize(("value", "unit", "said"), DIFFERS.values(), ids=DIFFERS)
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_time_that_does_not_agree_with_the_unit_is_refused(
    tmp_path: Path, ending: str, value: str, unit: Any, said: str
) -> None:
    with pytest.raises(LogUnreadable, match=said):
        open_log(_as(ending, value, tmp_path), times=TimeRule(unit))
