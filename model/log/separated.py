"""Separated text (CSV, TSV, `.dat` with `::`, RecBole's `.inter`) as pieces with columns of text.

polars splits blocks in which every quote is the first or the last character of a field. Python's `csv` splits the
others, which takes longer. Both give the same fields. Blanks at the ends of a field are no part of it, unless it has
quotes.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Final

import numpy as np
import polars as pl

from model.errors import LogUnreadable
from model.log.columns import OPTIONS
from model.log.dialect import Dialect, dialect_of
from model.log.piece import Piece
from model.log.source import Part
from model.log.text import Block, TextFile
from model.times import TimeRule

ROWS: Final = 1 << 17
"""Of a piece that Python's csv reads."""
_UNUSED: Final = "\x1f"
"""Stands for `::`, because polars knows only separators of one byte."""


def pieces(
    part: Part, named: Mapping[str, str], rule: TimeRule, dialects: list[Dialect], notes: list[str]
) -> Iterator[Piece]:
    """The rows of a file.

    Args:
        named: the names of the columns in the log, by our names.
        dialects: those of earlier parts; that of this part is appended.
        notes: what a reader should know is appended.

    Raises:
        LogUnreadable: a column is missing, a line has too many fields, or the text is damaged.
    """
    file = TextFile(part.path)
    sample = file.sample()
    try:
        dialect = dialect_of(sample, named.values(), rule, dialects[0] if dialects else None)
        index = {name: dialect.index(column) for name, column in named.items()}
    except LogUnreadable as error:
        raise LogUnreadable(f"{part.name}: {error}") from error
    _check(part, named, dialect, index)
    if not dialect.has_header and not dialects:
        notes.append(_without_header(part, dialect, index))
    dialects.append(dialect)
    found = {name: number for name, number in index.items() if number is not None}
    constant = {name: part.folders[column] for name, column in named.items() if name not in found}
    for frame, place in _frames(part, file, dialect, sorted(set(found.values()))):
        yield Piece(
            frame.select(
                *(pl.col(str(number)).alias(name) for name, number in found.items()),
                *(pl.lit(value, pl.String).alias(name) for name, value in constant.items()),
            ),
            place,
            {},
        )
    notes += file.notes


def _check(part: Part, named: Mapping[str, str], dialect: Dialect, index: Mapping[str, int | None]) -> None:
    missing = [name for name, number in index.items() if number is None and named[name] not in part.folders]
    if missing:
        columns = ", ".join(repr(named[name]) for name in missing)
        how = "name" if dialect.has_header else "number, from 1,"
        raise LogUnreadable(
            f"{part.name}: no column {columns}. {dialect.described()}. "
            f"Give the {how} of the column with {', '.join(OPTIONS[name] for name in missing)}"
        )


def _without_header(part: Part, dialect: Dialect, index: Mapping[str, int | None]) -> str:
    order = ", ".join(
        f"{number + 1} is {name}" for name, number in index.items() if number is not None and name != "attribute"
    )
    return f"{part.name} has no header: of its {len(dialect.names)} columns, {order}"


def _frames(
    part: Part, file: TextFile, dialect: Dialect, wanted: Sequence[int]
) -> Iterator[tuple[pl.DataFrame, Callable[[int], str]]]:
    """Rows in columns whose names are their numbers from 0, and where each row is."""
    blocks = file.blocks()
    rows: Iterator[tuple[int, list[str]]]
    for number, found in enumerate(blocks):
        block = _without_first_line(found) if dialect.has_header and number == 0 else found
        if not block.lines.strip(b"\n"):
            continue
        if dialect.separator == "::":
            lines = block.lines.replace(b"::", _UNUSED.encode()) if _UNUSED.encode() not in block.lines else b"\n"
            frame = _split(lines, _UNUSED, dialect, wanted)
            rows = (
                (line, [field.strip(" ") for field in text[:-1].split("::")])
                for line, text in _lines(block)
                if text != "\n"
            )
        else:
            if block.lines.count(b'"') % 2:  # a quoted field goes on in the next block
                rest_of_file = chain.from_iterable(_lines(each) for each in chain([block], blocks))
                yield from _slowly(part, _quoted(part, rest_of_file, dialect.separator), dialect, wanted)
                return
            frame = _split(block.lines, dialect.separator, dialect, wanted)
            rows = _quoted(part, _lines(block), dialect.separator)
        if frame is None:
            yield from _slowly(part, rows, dialect, wanted)
        else:
            yield frame, _placed(part, range(block.first_line, block.first_line + len(frame)))


def _without_first_line(block: Block) -> Block:
    lines = block.lines.lstrip(b"\n")
    lines = lines[lines.index(b"\n") + 1 :]
    return Block(lines, block.first_line + block.lines.count(b"\n") - lines.count(b"\n"))


def _lines(block: Block) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(io.BytesIO(block.lines), start=block.first_line):
        yield number, line.decode()


def _placed(part: Part, lines: Sequence[int]) -> Callable[[int], str]:
    return lambda row: f"{part.name}, line {lines[row]}"


def _quoted(part: Part, lines: Iterator[tuple[int, str]], separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows as Python's csv reads them, without the blanks around unquoted fields, and the number of the first line of
    each.
    """
    at = [0, 0]
    """The first line of the row, and the newest that was read."""
    text: list[str] = []
    """The lines of the row."""
    field = re.compile(f'("[^"]*(?:""[^"]*)*"|[^{re.escape(separator)}\\r\\n]*)(?:{re.escape(separator)}|[\\r\\n]|$)')

    def read() -> Iterator[str]:
        for number, line in lines:
            at[0] = at[0] or number
            at[1] = number
            text.append(line)
            yield line

    def stripped(row: list[str]) -> list[str]:
        written = field.finditer("".join(text))
        return [each if next(written)[1].startswith('"') else each.strip(" ") for each in row]

    try:
        for row in csv.reader(read(), delimiter=separator, strict=True):
            yield at[0], stripped(row) if any(each[:1] == " " or each[-1:] == " " for each in row) else row
            at[0] = 0
            text.clear()
    except csv.Error as error:
        # A quote that nobody closes makes one field of everything that follows.
        raise LogUnreadable(
            f"{part.name}, line {at[0]}: has a quote or a carriage return where none can be (until line {at[1]}). "
            "A field that starts with a quote ends with one, and has quotes doubled inside"
        ) from error


def _slowly(
    part: Part, rows: Iterator[tuple[int, list[str]]], dialect: Dialect, wanted: Sequence[int]
) -> Iterator[tuple[pl.DataFrame, Callable[[int], str]]]:
    count = len(dialect.names)
    filled = ((line, row) for line, row in rows if row)
    while piece := list(islice(filled, ROWS)):
        for line, row in piece:
            if len(row) > count:
                raise LogUnreadable(
                    f"{part.name}, line {line}: has {len(row)} fields, expected {count}. {dialect.described()}"
                )
            row += [""] * (count - len(row))
        columns = {str(number): [row[number] or None for _, row in piece] for number in wanted}
        frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
        yield frame, _placed(part, [line for line, _ in piece])


def _split(lines: bytes, separator: str, dialect: Dialect, wanted: Sequence[int]) -> pl.DataFrame | None:
    """A block in columns; None if polars would not do it as `csv` does, or if a line has too many fields."""
    lines = lines.rstrip(b"\n") + b"\n"
    quoted = dialect.separator != "::" and b'"' in lines
    if quoted and not _regular(lines, separator):
        return None
    if b"\n\n" in lines or lines.startswith(b"\n") or b"\r" in lines:
        return None
    header = separator.join(map(str, range(len(dialect.names)))).encode()
    try:
        # All columns are read, because polars counts the fields of a line only then.
        quote = '"' if quoted else None
        every = pl.read_csv(header + b"\n" + lines, separator=separator, quote_char=quote, infer_schema=False)
    except pl.exceptions.PolarsError:
        return None
    if len(every) != lines.count(b"\n"):
        return None
    stripped = [pl.col(str(number)).str.strip_chars(" ") for number in wanted]
    return every.select(pl.when(field != "").then(field) for field in stripped)


def _regular(lines: bytes, separator: str) -> bool:
    """Whether every field with a quote begins and ends with one, and has no quotes inside and no blanks at its ends."""
    text = np.frombuffer(b"\n" + lines, np.uint8)
    quotes = np.flatnonzero(text == ord('"'))
    outside = [ord("\n"), ord(separator)]
    opening, closing = quotes[::2], quotes[1::2]
    blanks = (text[opening + 1] == ord(" ")).any() or (text[closing - 1] == ord(" ")).any()
    return bool(np.isin(text[opening - 1], outside).all() and np.isin(text[closing + 1], outside).all() and not blanks)
