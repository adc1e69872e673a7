"""A worker's log as values: what happened, and when by the wall clock of this machine.

A line is an event in words, then fields: `restored partition=0 records=5 …`. Other lines are skipped, and a missing
field is None. Lines of Quix Streams have another prefix and are read the same way.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

_OURS = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) (\w+) (\S+) (.*)$")
_QUIX = re.compile(r"^\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})\] \[(\w+)\] \[(\S+)\] : (.*)$")
_FIELD = re.compile(r"(\w+)=(\[[^\]]*\]|\S+)")


@dataclass(frozen=True, slots=True)
class Line:
    """One line."""

    at: float
    """Epoch seconds, to the millisecond."""
    event: str
    """The words before the first field."""
    fields: dict[str, str]

    def number(self, name: str) -> float | None:
        try:
            return float(self.fields[name])
        except (KeyError, ValueError):
            return None

    def numbers(self, name: str) -> tuple[int, ...]:
        """The integers of a list, `owned=[0, 1]`; empty where there is none."""
        return tuple(int(each) for each in re.findall(r"\d+", self.fields.get(name, "")))


def parsed(lines: Iterable[str]) -> list[Line]:
    """The lines in the form of a worker or of Quix, in their order."""
    found = []
    for line in lines:
        match = _OURS.match(line) or _QUIX.match(line)
        if match is None:
            continue
        when, _, _, message = match.groups()
        fields = dict(_FIELD.findall(message))
        words = message.split("=", 1)[0].rsplit(" ", 1)[0] if fields else message
        at = datetime.strptime(when, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()
        found.append(Line(at, words.strip(), fields))
    return found


def read(log: Path) -> list[Line]:
    return parsed(log.read_text(errors="replace").splitlines())


def assigned(lines: Sequence[Line], wanted: Iterable[int] = ()) -> Line | None:
    """The first line that assigns one of the wanted partitions, or any partition if none is given."""
    asked = set(wanted)
    for line in lines:
        given = line.numbers("assigned") if line.event.startswith("partitions") else ()
        if given and (not asked or asked & set(given)):
            return line
    return None


def restored(lines: Sequence[Line], wanted: Iterable[int]) -> dict[int, Line]:
    """The last `restored` line of each wanted partition."""
    asked = set(wanted)
    return {
        int(number): line
        for line in lines
        if line.event == "restored" and (number := line.number("partition")) in asked
    }


def owned(lines: Sequence[Line]) -> set[int]:
    """The partitions that a worker owns according to its log."""
    found: set[int] = set()
    for line in lines:
        if line.event.startswith("partitions"):
            found |= set(line.numbers("assigned"))
            found -= {number for why in ("revoked", "lost", "closed") for number in line.numbers(why)}
    return found
