"""Separated text: what polars splits has the fields that Python's csv reads."""

import csv
import io
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.errors import LogUnreadable
from model.log import separated
from model.log.dialect import Dialect
from model.log.separated import pieces
from model.log.source import parts
from model.times import TimeRule

CELLS = st.text(st.sampled_from('ab7 "é,;\n\r\x1f#\\'), max_size=4) | st.sampled_from(
    ['"a"', '""', '"a,b"', '"a""b"', "", "x"]
)
LINES = st.lists(st.lists(CELLS, min_size=1, max_size=5).map(",".join), max_size=6).map("\n".join)
MARK, CLOSED = "\x01", "\x02"
NAMED = {"user_id": "u", "item_id": "i", "timestamp": "t"}


def _read(text: str, folder: Path) -> list[tuple[str | None, ...]] | None:
    path = folder / "log.csv"
    path.write_bytes(b"u,i,x,t\n" + text.encode())
    (part,) = parts(str(path), [])
    try:
        return [row for piece in pieces(part, NAMED, TimeRule(), [], []) for row in piece.frame.rows()]
    except LogUnreadable:
        return None


def _expected(text: str) -> list[tuple[str | None, ...]] | None:
    normal = _marked(text.replace("\r\n", "\n"))
    try:
        rows = [row for row in csv.reader(io.StringIO(normal, newline="\n"), strict=True) if row]
    except csv.Error:
        return None
    if any(len(row) > 4 for row in rows):
        return None
    fields = [[cell.strip(" ").replace(MARK, " ") for cell in row] for row in rows]
    filled = [[*row, *[""] * (4 - len(row))] for row in fields]
    return [(row[0] or None, row[1] or None, row[3] or None) for row in filled]


def _marked(text: str) -> str:
    """The text with a mark for each blank of a quoted field."""
    marked, quoted = "", False
    for at, character in enumerate(text):
        if character == '"' and (quoted or at == 0 or text[at - 1] in ",\n" or marked.endswith(CLOSED)):
            # A doubled quote closes the field and opens it again.
            quoted = not quoted
            marked += '"' if quoted else CLOSED
        else:
            marked += MARK if quoted and character == " " else character
    return marked.replace(CLOSED, '"')


@settings(deadline=None, max_examples=400)
@given(LINES)
@example("a,b,c,d\na,b,c,d,e\n")
@example("\r7")
@example("a\rb,c\n")
@example("a,b,c,d\na,b")
@example('"a","b",c,d\n')
@example('"a,"b",c"\n')
@example('"a\nb",b,c,d\n')
@example(" a , b,c,d  \n")
@example('" a", b ,c," "\n')
@example('" a""", b ,c," "\n')
@example(' "a" , ,c,d\n')
@example('" a\n b "," b " ,c,d\n')
@example('" a\n b ", b,c,d\n\n x,"y ",z,  \n')
@example("a,b,c,\n,,,\n\n1,2,3,4")
def test_every_block_has_the_fields_that_csv_reads(tmp_path_factory: object, text: str) -> None:
    folder = Path(tmp_path_factory.mktemp("log"))  # type: ignore[attr-defined]
    assert _without_empty(_read(text, folder)) == _without_empty(_expected(text))


def _without_empty(rows: list[tuple[str | None, ...]] | None) -> list[tuple[str | None, ...]] | None:
    """A quoted field without text is text or none; both are refused alike."""
    return None if rows is None else [tuple(cell or None for cell in row) for row in rows]


def test_ordinary_blocks_are_split_by_polars() -> None:
    dialect = Dialect(",", ("a", "b"), has_header=True)
    for block in (b"1,2\n3,4\n", b'"1","2"\n"3",4\n', b'1,"a,b"\n', b"1\n"):
        assert separated._split(block, ",", dialect, [0, 1]) is not None
    for block in (b"1,2,3\n", b'1," 2"\n', b'1,"2 "\n', b'1,"a""b"\n', b"1,2\n\n3,4\n", b"1,a\rb\n", b'1,a"b"\n'):
        assert separated._split(block, ",", dialect, [0, 1]) is None
