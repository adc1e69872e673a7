"""How a file of separated text is written: its separator, and whether its first line names the columns."""

import csv
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from model.errors import LogUnreadable
from model.log.wording import listed, shown
from model.times import ISO, NUMBER, TimeRule

SEPARATORS: Final = ("::", "\t", ",", ";", "|")
SEPARATOR_NAMES: Final[Mapping[str, str]] = {"\t": "tab"}
_SAMPLED: Final = 50
_DATA: Final = re.compile(f"(?:{NUMBER})|(?:{ISO})")
_RECBOLE: Final = re.compile(r"^(.+):(?:token|float|token_seq|float_seq)$")
_WITHOUT_HEADER: Final[Mapping[int, tuple[str, ...]]] = {
    3: ("user_id", "item_id", "timestamp"),
    4: ("user_id", "item_id", "rating", "timestamp"),
}
"""The columns of a file without a header, as MovieLens and others publish them, if the last one is a time."""


@dataclass(frozen=True, slots=True)
class Dialect:
    separator: str
    names: tuple[str, ...]
    has_header: bool

    def index(self, column: str) -> int | None:
        """Where a column is; None if there is no such column.

        Raises:
            LogUnreadable: several columns have the name.
        """
        found = [number for number, name in enumerate(self.names) if name == column]
        if len(found) > 1:
            raise LogUnreadable(f"{len(found)} columns have the name {shown(column)}. Rename all but one")
        if found:
            return found[0]
        if not self.has_header and column.isascii() and column.isdigit() and 1 <= int(column[:9]) <= len(self.names):
            return int(column[:9]) - 1
        return None

    def described(self) -> str:
        separator = SEPARATOR_NAMES.get(self.separator, self.separator)
        if len(self.names) == 1:
            known = " ".join(SEPARATOR_NAMES.get(each, each) for each in SEPARATORS)
            return f"The first line is {listed(list(self.names))}, without any of the separators {known}"
        if self.has_header:
            return f"The log has {listed(list(self.names))} (separated by {separator!r})"
        return f"The file has no header, and {len(self.names)} columns separated by {separator!r}"


def fields(line: str, separator: str) -> list[str]:
    """The fields of a line."""
    if len(separator) > 1:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:  # a field of more than csv.field_size_limit() characters
        return [line]


def dialect_of(sample: str, wanted: Collection[str], rule: TimeRule, earlier: Dialect | None = None) -> Dialect:
    """The dialect of a file, by its first lines.

    The first line is a header if it has the name of a wanted column. If it has none, it is data if one of its fields is
    a number or a date.

    Args:
        sample: whole lines.
        wanted: the names of the columns that are read.
        earlier: the dialect of an earlier part of the same log. A part without a header has the columns of that one, if
            there are as many.
    """
    lines = [line for line in sample.split("\n") if line][:_SAMPLED] or [""]
    first = lines[0]

    def fit(separator: str) -> tuple[int, bool, int]:
        rows = [fields(line, separator) for line in lines]
        names = set(_names(rows[0]))
        same = sum(len(row) == len(rows[0]) for row in rows) * 10 >= 9 * len(rows)
        return len(names & set(wanted)), same and len(rows[0]) > 1, len(rows[0])

    separator = max(SEPARATORS, key=fit)
    row = fields(first, separator)
    names = _names(row)
    if set(names) & set(wanted) or not any(_DATA.fullmatch(field.strip(" ")) for field in row):
        return Dialect(separator, tuple(names), has_header=True)
    if earlier is not None and len(earlier.names) == len(row):
        return Dialect(separator, earlier.names, has_header=False)
    if _is_time(row[-1], rule) and (usual := _WITHOUT_HEADER.get(len(row))):
        return Dialect(separator, usual, has_header=False)
    return Dialect(separator, tuple(str(number + 1) for number in range(len(row))), has_header=False)


def _names(row: Sequence[str]) -> list[str]:
    """The names in a header, without the types that RecBole adds to all of them."""
    names = [name.strip(" ") for name in row]
    typed = [_RECBOLE.fullmatch(name) for name in names]
    return [found[1] for found in typed if found] if all(typed) else names


def _is_time(text: str, rule: TimeRule) -> bool:
    try:
        return rule.milliseconds(text) is not None
    except ValueError:
        return False
