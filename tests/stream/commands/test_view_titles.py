"""Titles of items from a file."""

from pathlib import Path

import polars as pl
import pytest

from stream.commands.view.titles import MAX_TITLE, read_titles
from stream.errors import SettingsInvalid


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_item_has_its_title_whatever_the_type_of_its_id(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"items.{kind}"
    frame = pl.DataFrame(
        {"item_id": [7, 8, 18446744073709551615], "title": ["Heat", None, "Ran, 乱"], "year": [1, 2, 3]}
    )
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    titles = read_titles(path)
    assert titles.of([7, "7", 8, 9, "007"]) == {"7": "Heat"}
    assert titles.of(["18446744073709551615"]) == {"18446744073709551615": "Ran, 乱"}
    assert len(titles) == 2


def test_a_title_is_one_line_that_no_terminal_acts_on_and_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pl.DataFrame({"item_id": ["a", "b"], "title": ["\x1b[31m\u202ered\n", "x" * 1000]}).write_parquet(path)
    assert read_titles(path).of(["a", "b"]) == {"a": r"\x1b[31m\u202ered\n", "b": "x" * MAX_TITLE}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("no-such.csv", None, "cannot be read as CSV"),
        ("items.parquet", b"item_id,title\n1,x\n", "cannot be read as Parquet"),
        ("items.csv", b"id,title\n1,x\n", "no column item_id; its columns are id, title"),
        ("items.csv", b"", "cannot be read as CSV"),
        ("items.csv", b"item_id,title\n1,\xff\xfe\n", "cannot be read as CSV"),
    ],
)
def test_a_file_without_titles_is_refused_by_name(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsInvalid, match=said) as refused:
        read_titles(path)
    assert str(path) in str(refused.value)
