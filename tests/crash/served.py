"""Which version served when: what the changelog's marks say, and whether it agrees with what was promoted.

Bytes are read with code of its own, as docs/state-format.md and docs/promote.md describe them.
"""

import json
import struct
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgpack

from tests.crash.replay import Rules
from tests.crash.taken import Taken
from tests.crash.versions import Version

_MARK: Final = b"\x00v"
_MEMORY: Final = b"\x02"
_PROMOTION: Final = b"promotion/"


class Mark(NamedTuple):
    """From this offset of the input on, `reference` served a partition, because of this promotion; "": it was
    configured, or what a worker had when it could not fetch the promoted one.
    """

    number: int
    reference: str
    promotion: str
    memory_format: str
    offset: int
    wall_ms: int


class Stored(NamedTuple):
    """A preference memory as the changelog has it. `kind`: `newest`, of the newest fold; `prepared`, rebuilt in another
    format before that format folds; `earlier`, of a format that folded before.
    """

    kind: str
    memory_format: str
    folds: int
    memory: tuple[float, ...]
    missing: int


class Promoted(NamedTuple):
    """A promotion, and when Kafka had it, epoch ms."""

    id: str
    reference: str
    time: int


def marks(changelog: Iterable[Taken]) -> dict[int, list[Mark]]:
    """Partition → its marks, in the order of their numbers."""
    found: defaultdict[int, dict[int, Mark]] = defaultdict(dict)
    for record in changelog:
        key, value = record.key or b"", record.value
        if key.startswith(_MARK) and value:
            number = int.from_bytes(key[len(_MARK) :], "big")
            found[record.partition][number] = Mark(number, *msgpack.unpackb(value[1:]))
    return {partition: [mine[number] for number in sorted(mine)] for partition, mine in found.items()}


def memories(changelog: Iterable[Taken]) -> dict[tuple[int, str], list[Stored]]:
    """(partition, user) → the preference memories that are stored, in the order of their keys."""
    found: dict[tuple[int, str, bytes], bytes] = {}
    for record in changelog:
        key = record.key or b"\x00"
        user, rest = key[1 : 1 + key[0]], key[1 + key[0] :]
        if not user or not rest.startswith(_MEMORY):
            continue
        place = record.partition, user.decode(), rest[len(_MEMORY) :]
        if record.value is None:
            found.pop(place, None)
        else:
            found[place] = record.value
    stored: defaultdict[tuple[int, str], list[Stored]] = defaultdict(list)
    for (partition, user, rest), value in sorted(found.items()):
        memory_format, _, folds, _, memory, *missing = msgpack.unpackb(value[1:])
        kind = {b"": "newest", b"\x00": "prepared"}.get(rest, "earlier")
        floats = struct.unpack(f"<{len(memory) // 4}f", memory)
        stored[partition, user].append(Stored(kind, memory_format, folds, floats, *(missing or [0])))
    return dict(stored)


def promotions(records: Iterable[Taken]) -> list[Promoted]:
    """The history of promotions, in the order in which Kafka has it."""
    found: dict[str, Promoted] = {}
    for record in records:
        key = record.key or b""
        if key.startswith(_PROMOTION) and record.value:
            said: dict[str, Any] = json.loads(record.value)
            found.setdefault(said["id"], Promoted(said["id"], said["version"], record.timestamp))
    return list(found.values())


class Terms:
    """The versions of one partition, one after the other."""

    def __init__(self, marks: Sequence[Mark], rules: Rules) -> None:
        known = [mark for mark in marks if mark.reference in rules.versions]
        self._starts = [mark.offset for mark in known]
        self._versions = [rules.versions[mark.reference] for mark in known]
        if not known or known[0].offset > 0:
            self._starts.insert(0, -1)
            self._versions.insert(0, rules.versions[rules.configured])

    def at(self, offset: int) -> Version:
        """The version that served the record with this offset."""
        return self._versions[max(0, bisect_right(self._starts, offset) - 1)]

    @property
    def last(self) -> Version:
        return self._versions[-1]


class Served:
    """What was promoted, and what a partition may therefore have been served by at a time."""

    def __init__(self, history: Sequence[Promoted], rules: Rules, excused: Sequence[tuple[int, int]] = ()) -> None:
        """`excused`: times, epoch ms, from which to which a worker could not fetch the newest version: it may serve
        whatever was promoted before.
        """
        self._history, self._rules, self._excused = history, rules, excused
        good = [each for each in history if each.reference not in rules.bad]
        self._times = [each.time for each in good]
        self._references = [rules.configured, *(each.reference for each in good)]

    def may(self, reference: str, time: int) -> bool:
        """Whether this version may be what serves: it is the newest one that can serve, or was it a moment before."""
        excused = any(began <= time <= ended for began, ended in self._excused)
        first = 0 if excused else bisect_left(self._times, time - self._rules.serves_within_ms)
        return reference in self._references[first : bisect_right(self._times, time) + 1]

    def wrong_marks(self, partition: int, marks: Sequence[Mark]) -> Iterator[str]:
        """What is wrong with the marks of a partition, a line each."""
        order = {"": -1, **{each.id: at for at, each in enumerate(self._history)}}
        named = {each.id: each for each in self._history}
        before: Mark | None = None
        for mark in marks:
            where = f"mark {mark.number} of partition {partition}, from {mark.offset} on, {mark.reference}"
            promotion = named.get(mark.promotion)
            if mark.promotion and promotion is None:
                yield f"{where}: its promotion {mark.promotion} is nowhere"
            elif promotion and mark.reference != promotion.reference:
                yield f"{where}: its promotion {mark.promotion} is of another version"
            elif mark.reference in self._rules.bad:
                yield f"{where}: this version cannot serve"
            elif mark.reference not in self._rules.versions:
                yield f"{where}: there is no such version"
            elif mark.memory_format != self._rules.versions[mark.reference].memory_format:
                yield f"{where}: it says memory format {mark.memory_format}"
            elif promotion and mark.wall_ms < promotion.time:
                yield f"{where}: it served {promotion.time - mark.wall_ms} ms before it was promoted"
            elif not self.may(mark.reference, mark.wall_ms):
                yield f"{where}: something else had been promoted long before"
            if before is not None:
                if mark.offset < before.offset:
                    yield f"{where}: the mark before it is from {before.offset} on"
                if (mark.reference, mark.promotion) == (before.reference, before.promotion):
                    yield f"{where}: the mark before it says the same"
                if self._rules.in_order and order.get(mark.promotion, 0) < order.get(before.promotion, 0):
                    yield f"{where}: the mark before it is of a later promotion"
            before = mark
