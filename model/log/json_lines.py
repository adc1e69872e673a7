"""JSON lines as pieces: one object a line, with nested objects."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import polars as pl

from model.errors import LogUnreadable
from model.log.columns import OPTIONS, value_at
from model.log.piece import Piece
from model.log.source import Part
from model.log.text import Block, TextFile
from model.log.wording import listed, shown

ROWS: Final = 1 << 17


def pieces(part: Part, named: Mapping[str, str], notes: list[str]) -> Iterator[Piece]:
    """The rows of a file.

    Args:
        named: the names of the columns in the log, by our names.
        notes: what a reader should know is appended.

    Raises:
        LogUnreadable: a line is not a JSON object, or the first thousands have no such column.
    """
    file = TextFile(part.path)
    # Only what leads to a wanted column is decoded.
    keys = sorted({key for column in named.values() for key in (column, column.split(".")[0])})
    fields = [(f"f{number}", Any, msgspec.UNSET) for number in range(len(keys))]
    record = msgspec.defstruct("Record", fields, rename=dict(zip((name for name, *_ in fields), keys, strict=True)))
    decode = msgspec.json.Decoder(record).decode
    seen: set[str] = set()
    for block in file.blocks():
        lines: list[int] = []
        values: dict[str, list[Any]] = {name: [] for name in named}
        for number, line in enumerate(block.lines.split(b"\n"), start=block.first_line):
            if not line.strip():
                continue
            try:
                found = decode(line)
                known: Mapping[str, Any] = {
                    key: value
                    for key, (name, *_) in zip(keys, fields, strict=True)
                    if (value := getattr(found, name)) is not msgspec.UNSET
                }
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                known = _leniently(part, number, line)
            lines.append(number)
            for name, column in named.items():
                value = value_at(known, column)
                if value is not None or column in known:
                    seen.add(name)
                values[name].append(part.folders.get(column) if value is None else value)
        missing = [name for name, column in named.items() if name not in seen and column not in part.folders]
        _check(part, named, missing, block)
        for at in range(0, len(lines), ROWS):
            yield _piece(part, {name: column[at : at + ROWS] for name, column in values.items()}, lines[at : at + ROWS])
    notes += file.notes


def _leniently(part: Part, number: int, line: bytes) -> Mapping[str, Any]:
    """What Python's decoder makes of a line: it takes NaN, and half characters."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg} at character {error.pos + 1}"
        else:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else "a number in it is too long"
        raise LogUnreadable(f"{part.name}, line {number}: is not JSON: {reason}") from error
    if not isinstance(found, dict):
        raise LogUnreadable(
            f"{part.name}, line {number}: is a JSON {_kind(found)}, expected one object a line, such as "
            '{"user_id": "u1", "item_id": 7, "timestamp": 1767225600000}'
        )
    return found


def _kind(value: object) -> str:
    kinds = {list: "array", str: "text", bool: "truth value", type(None): "null"}
    return kinds.get(type(value), "number")


def _check(part: Part, named: Mapping[str, str], missing: list[str], block: Block) -> None:
    if missing and block.lines.strip():
        first = next(line for line in block.lines.split(b"\n") if line.strip())
        names = list(json.loads(first))
        raise LogUnreadable(
            f"{part.name}: no column {', '.join(shown(named[name]) for name in missing)}. The log has {listed(names)}. "
            f"Give the name or the path of the column with {', '.join(OPTIONS[name] for name in missing)}"
        )


def _piece(part: Part, values: dict[str, list[Any]], lines: list[int]) -> Piece:
    columns: dict[str, pl.Series] = {}
    mixed: dict[str, list[Any]] = {}
    for name, column in values.items():
        series = _of_one_type(name, column)
        if series is None:
            mixed[name] = column
        else:
            columns[name] = series
    frame = pl.DataFrame(columns) if columns else pl.DataFrame({"": lines})
    return Piece(frame, lambda row: f"{part.name}, line {lines[row]}", mixed)


def _of_one_type(name: str, column: list[Any]) -> pl.Series | None:
    """A column of integers, floats or texts; None for another one."""
    types = set(map(type, column)) - {type(None)}
    dtype = {int: pl.Int64, float: pl.Float64, str: pl.String}.get(types.pop()) if len(types) == 1 else None
    if dtype is None or types:
        return None
    try:
        return pl.Series(name, column, dtype=dtype)
    except (OverflowError, TypeError, UnicodeEncodeError, pl.exceptions.PolarsError):
        return None
