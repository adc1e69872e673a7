"""The oracle: recompute everything that was published from the input topic alone, and compare for equality.

A thing is *lost* if it must be there and is not, *doubled* if it is there once too often, *differing* if it is there
and is not what the input says. Things are interactions in a state, lists, withdrawn lists, dead letters, and marks.

Each list and each state is recomputed with the version that served then, as the partition's marks say; and the marks
must agree with what was promoted.
"""

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgpack

from tests.crash.reading import Observed
from tests.crash.replay import Made, Memorised, Replay, Rules
from tests.crash.said import said, user_of
from tests.crash.served import Served, Stored, Terms
from tests.crash.taken import Taken

_ERROR_HEADER = "__streams.errors."
_MALFORMED = b"MalformedInteraction"
_WITHDRAWN = -1
_EXAMPLES = 20

Wrong = Literal["lost", "doubled", "differing"]
Place = tuple[int, int]
"""Partition and offset in the input."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was compared, and how much of it was wrong."""

    interactions: int
    users: int
    lists: int
    forgotten: int
    malformed: int
    refused: int
    """Dead letters of records that the model failed on."""
    swaps: int
    """How often another version began to serve a partition."""
    lost: int
    doubled: int
    differing: int
    examples: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not (self.lost or self.doubled or self.differing)


@dataclass(slots=True)
class _Tally:
    wrong: Counter[Wrong] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def note(self, what: Wrong, example: str, count: int = 1) -> None:
        self.wrong[what] += count
        if len(self.examples) < _EXAMPLES:
            self.examples.append(f"{what}: {example}")


def judge(observed: Observed, rules: Rules) -> Verdict:
    """Compare what was published with what the input says."""
    tally = _Tally()
    dead = _DeadLetters(observed.dead_letters, tally)
    served = Served(observed.promotions, rules, observed.excused)
    published = _Published(observed.recommendations, rules, served)
    terms: dict[int, Terms] = {}
    users: dict[tuple[int, str], Replay] = {}
    counts: Counter[str] = Counter()
    for partition, marks in observed.marks.items():
        for line in served.wrong_marks(partition, marks):
            tally.note("differing", line)
        counts["swaps"] += len(marks) - 1
    for record in observed.interactions:
        if record.partition not in terms:
            terms[record.partition] = Terms(observed.marks.get(record.partition, ()), rules)
        mine = terms[record.partition]
        user = user_of(record.key)
        heard = None if record.value is None else said(record.value, record.timestamp)
        if user is None or (record.value is not None and heard is None):
            counts["malformed"] += 1
            dead.expect(record)
            continue
        place = record.partition, user
        if heard is None:
            counts["forgotten"] += 1
            users.pop(place, None)
            published.forgotten(user)
            continue
        counts["interactions"] += 1
        replay = users.get(place)
        if replay is None:
            replay = users[place] = Replay(rules)
        version = mine.at(record.offset)
        if (record.partition, record.offset) in dead.refused:
            counts["refused"] += 1
            segment = version.rows([*replay.items, heard.item])
            full = len(segment) == rules.segment_length
            dead.refusal(record, may_fail=full and version.may_fail(segment))
            continue
        if replay.take(heard, version):
            counts["lists"] += 1
            published.expect(user, replay.recommendation(record.partition, record.offset, heard.time, version), tally)
    dead.rest()
    published.rest(tally)
    # A user with nothing but refused records has no state.
    there = {place: replay for place, replay in users.items() if replay.taken}
    _compare_states(observed.states, there, terms, rules, tally)
    _compare_memories(observed.memories, there, rules, tally)
    return Verdict(
        interactions=counts["interactions"],
        users=len(users),
        lists=counts["lists"],
        forgotten=counts["forgotten"],
        malformed=counts["malformed"],
        refused=counts["refused"],
        swaps=counts["swaps"],
        lost=tally.wrong["lost"],
        doubled=tally.wrong["doubled"],
        differing=tally.wrong["differing"],
        examples=tuple(tally.examples),
    )


def _compare_states(
    rows: Iterable[Mapping[str, Any]],
    users: Mapping[tuple[int, str], Replay],
    terms: Mapping[int, Terms],
    rules: Rules,
    tally: _Tally,
) -> None:
    seen: set[tuple[int, str]] = set()
    for row in rows:
        place = row["partition"], row["user_id"]
        replay = users.get(place)
        if place in seen or replay is None:
            tally.note(
                "differing",
                f"state of user {place[1]} in partition {place[0]}, who was forgotten or never came: taken {row['taken']}",
            )
            continue
        seen.add(place)
        possible = list(replay.rows(place[1], place[0], terms[place[0]].last))
        if any(_same_row(row, expected, rules.tolerance) for expected in possible):
            continue
        expected = possible[0]
        unequal = {name: (row[name], value) for name, value in expected.items() if row[name] != value}
        example = f"state of user {place[1]} in partition {place[0]}, found and expected: {unequal}"
        behind = replay.taken - row["taken"]
        tally.note("lost" if behind > 0 else "doubled" if behind < 0 else "differing", example, abs(behind) or 1)
    for place in users.keys() - seen:
        tally.note(
            "lost",
            f"state of user {place[1]} in partition {place[0]}, {users[place].taken} interactions",
            users[place].taken,
        )


def _compare_memories(
    found: Mapping[tuple[int, str], Sequence[Stored]],
    users: Mapping[tuple[int, str], Replay],
    rules: Rules,
    tally: _Tally,
) -> None:
    """Those of the newest fold and of earlier formats must be there, and no others; a prepared one may be."""
    for place in found.keys() | users.keys():
        replay, stored = users.get(place), found.get(place, ())
        where = f"memories of user {place[1]} in partition {place[0]}"
        if replay is None:
            tally.note("differing", f"{where}, who was forgotten or never came: {stored}", len(stored))
            continue
        expected = [_stored("earlier" if at else "newest", each, rules) for at, each in enumerate(replay.memories)]
        prepared = {
            _stored("prepared", replay.read_by(version)[0], rules)
            for version in rules.versions.values()
            if any((each.kind, each.memory_format) == ("prepared", version.memory_format) for each in stored)
            and replay.memories
        }
        lacking = [each for each in expected if not any(_same_memory(other, each, rules) for other in stored)]
        more = [
            each for each in stored if not any(_same_memory(each, other, rules) for other in (*expected, *prepared))
        ]
        if lacking or more:
            tally.note("differing", f"{where}: {lacking} are not there, and {more} are")


def _stored(kind: str, memory: Memorised, rules: Rules) -> Stored:
    return Stored(kind, memory.memory_format, memory.folds, tuple(rules.floats(memory)), memory.missing)


def _same_memory(found: Stored, expected: Stored, rules: Rules) -> bool:
    if found._replace(memory=()) != expected._replace(memory=()):
        return False
    return _near(found.memory, expected.memory, rules.tolerance)


def _same_row(found: Mapping[str, Any], expected: Mapping[str, Any], tolerance: float) -> bool:
    same = all(found[name] == value for name, value in expected.items() if name != "memory")
    return same and _near(found["memory"], expected["memory"], tolerance)


def _same_list(made: Mapping[str, Any], expected: Made, tolerance: float) -> bool:
    """Items whose scores differ by less than the tolerance may change places."""
    ranking = expected.ranking
    if any(made.get(name) != value for name, value in expected.fields.items()):
        return False
    items, scores = made.get("items"), made.get("scores")
    if not tolerance:
        return (items, scores) == (ranking.items, ranking.scores)
    known = {**ranking.beyond, **dict(zip(ranking.items, ranking.scores, strict=True))}
    own = [known.get(item, math.inf) for item in items or ()]
    return _near(scores or (), ranking.scores, tolerance) and _near(scores or (), own, tolerance)


def _near(found: Sequence[float], expected: Sequence[float], tolerance: float) -> bool:
    return len(found) == len(expected) and all(
        abs(one - other) <= tolerance for one, other in zip(found, expected, strict=True)
    )


class _DeadLetters:
    """By their place in the input: what is there, and what must be."""

    def __init__(self, letters: Iterable[Taken], tally: _Tally) -> None:
        self._tally = tally
        self._found: defaultdict[Place, list[Taken]] = defaultdict(list)
        self.refused: set[Place] = set()
        for letter in letters:
            headers = dict(letter.headers)
            place = (
                int(headers[_ERROR_HEADER + "partition"] or b"-1"),
                int(headers[_ERROR_HEADER + "offset"] or b"-1"),
            )
            self._found[place].append(letter)
            if headers[_ERROR_HEADER + "exception"] != _MALFORMED:
                self.refused.add(place)

    def expect(self, record: Taken) -> None:
        """There must be one for this record, with the same key and value."""
        letters = self._found.pop((record.partition, record.offset), [])
        example = f"dead letter of {record.partition}/{record.offset}"
        if not letters:
            self._tally.note("lost", example)
        if len(letters) > 1:
            self._tally.note("doubled", example, len(letters) - 1)
        if any((letter.key, letter.value) != (record.key, record.value) for letter in letters):
            self._tally.note("differing", example)

    def refusal(self, record: Taken, *, may_fail: bool) -> None:
        """There is one for an interaction that can be read."""
        self.expect(record)
        if not may_fail:
            self._tally.note(
                "lost", f"interaction {record.partition}/{record.offset}: in the dead letters without a reason"
            )

    def rest(self) -> None:
        for place, letters in self._found.items():
            self._tally.note(
                "differing",
                f"dead letter of {place[0]}/{place[1]}, which is no record that can be refused",
                len(letters),
            )


class _Published:
    """Lists by the place in the input that they were made for, and each user's lists and withdrawals in their order."""

    def __init__(self, recommendations: Iterable[Taken], rules: Rules, served: Served) -> None:
        self._tolerance, self._served = rules.tolerance, served
        self._lists: dict[Place, list[tuple[str, Taken]]] = {}
        self._found: defaultdict[str, array[int]] = defaultdict(lambda: array("q"))
        self._expected: defaultdict[str, array[int]] = defaultdict(lambda: array("q"))
        for record in recommendations:
            user = (record.key or b"").decode()
            if record.value is None:
                self._found[user].append(_WITHDRAWN)
                continue
            made = msgpack.unpackb(record.value)
            self._lists.setdefault((made["partition"], made["offset"]), []).append((user, record))
            self._found[user].append(made["offset"])

    def forgotten(self, user: str) -> None:
        self._expected[user].append(_WITHDRAWN)

    def expect(self, user: str, expected: Made, tally: _Tally) -> None:
        fields, ranking = expected
        place = fields["partition"], fields["offset"]
        self._expected[user].append(place[1])
        found = self._lists.pop(place, [])
        example = f"list of user {user} after {place[0]}/{place[1]}"
        if not found:
            tally.note("lost", example)
        if len(found) > 1:
            tally.note("doubled", example, len(found) - 1)
        for owner, record in found[:1]:
            made = msgpack.unpackb(record.value)
            if owner != user or not _same_list(made, expected, self._tolerance):
                all_of_it = {**fields, "items": ranking.items, "scores": ranking.scores}
                unequal = {
                    name: (made.get(name), value) for name, value in all_of_it.items() if made.get(name) != value
                }
                tally.note("differing", f"{example}, owner {owner}, found and expected: {unequal}")
            elif not self._served.may(made["model"], record.timestamp):
                tally.note(
                    "differing", f"{example}, by {made['model']} at {record.timestamp}, when it was not promoted"
                )

    def rest(self, tally: _Tally) -> None:
        for (partition, offset), lists in self._lists.items():
            tally.note(
                "doubled", f"list of user {lists[0][0]} after {partition}/{offset}, after which none is due", len(lists)
            )
        for user in self._expected.keys() | self._found.keys():
            _compare_order(user, self._expected.get(user, ()), self._found.get(user, ()), tally)


def _compare_order(user: str, expected: Iterable[int], found: Iterable[int], tally: _Tally) -> None:
    """A user's lists come in the order of their interactions; each null is followed by a withdrawal before the next
    list.

    Two nulls in a row may be one withdrawal. Lists that are missing or doubled have been counted already.
    """
    due, there = _withdrawals(expected), _withdrawals(found)
    both = [offset for offset in due if offset in there]
    if both != [offset for offset in there if offset in due]:
        tally.note("differing", f"lists of user {user} are not in the order of their interactions")
        return
    for offset, forgotten in due.items():
        withdrawn = there.get(offset, 0)
        example = f"user {user} after the list at offset {offset}: forgotten {forgotten} times, list withdrawn {withdrawn} times"
        if forgotten and not withdrawn and offset != _WITHDRAWN and offset in there:
            tally.note("lost", example)
        elif withdrawn > forgotten:
            tally.note("doubled", example, withdrawn - forgotten)


def _withdrawals(order: Iterable[int]) -> dict[int, int]:
    """After each list, in their order, how many withdrawals came before the next; `_WITHDRAWN` stands for the time
    before the first.
    """
    found = {_WITHDRAWN: 0}
    newest = _WITHDRAWN
    for each in order:
        if each == _WITHDRAWN:
            found[newest] += 1
        elif each not in found:
            newest = each
            found[each] = 0
    return found
