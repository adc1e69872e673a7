"""Which version served when: what the changelog's marks say, and whether it agrees with what was promoted.

Bytes are read with code of its own, as docs/state-format.md and docs/promote.md describe them.
"""

import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgpack

from tests.crash.replay import Rules
from tests.crash.taken import Taken
from tests.crash.versions import Version

_MARK: Final = b"\x00v"
_PROMOTION: Final = b"promotion/"


class Mark(NamedTuple):
    """From this offset of the input on, `reference` served a partition, because of this promotion; "": it was
    configured.
    """

    number: int
    reference: str
    promotion: str
    offset: int
    wall_ms: int


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

    def at(self, offset: int) -> int:
        """The number of the term that this offset is in."""
        return max(0, bisect_right(self._starts, offset) - 1)

    def version(self, term: int) -> Version:
        return self._versions[term]

    def between(self, first: int, last: int) -> Sequence[Version]:
        """The versions of these terms, both included."""
        return self._versions[first : last + 1]

    @property
    def last(self) -> int:
        return len(self._versions) - 1


class Served:
    """What was promoted, and what a partition may therefore have been served by at a time."""

    def __init__(self, history: Sequence[Promoted], rules: Rules, excused: Sequence[tuple[int, int]] = ()) -> None:
        """`excused`: times, epoch ms, from which to which a worker could not fetch the newest version: it may serve
        whatever served before.
        """
        self._history, self._rules, self._excused = history, rules, excused
        good = [each for each in history if each.reference not in rules.bad]
        self._times = [each.time for each in good]
        self._references = [rules.configured, *(each.reference for each in good)]

    def may(self, reference: str, time: int) -> bool:
        """Whether this version may be what serves: it is the newest one that can serve, or was it a moment before."""
        since = min([time, *(began for began, ended in self._excused if began <= time <= ended)])
        first = bisect_left(self._times, since - self._rules.serves_within_ms)
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
            elif mark.reference != (promotion.reference if promotion else self._rules.configured):
                yield f"{where}: its promotion {mark.promotion or 'none'} is of another version"
            elif mark.reference in self._rules.bad:
                yield f"{where}: this version cannot serve"
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
