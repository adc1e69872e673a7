"""Which dead letters a replay sends, and why it does not send the others. Nothing here asks Kafka."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from stream.commands.dead_letters.letters import Letter, Place, kind
from stream.commands.dead_letters.notes import Replayed

Known: TypeAlias = Mapping[int, Replayed | None]
"""Partition → what was sent in again; None where Kafka has no note of it."""


class PassedOver(StrEnum):
    """Why a letter is not sent."""

    REPLAYED = "replayed already (--again to insist)"
    REFUSED_OFTEN = "refused too often (--max-attempts)"
    UNKNOWN = "so old that Kafka no longer knows whether they were replayed (--again to insist)"
    NOT_OURS = "without the headers that say where they came from"
    LATER = "beyond --limit"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters a replay is for."""

    places: frozenset[Place] | None = None
    """None: all."""
    reason: str | None = None
    """Only those whose reason has this in it."""
    max_attempts: int = 3
    limit: int | None = None
    """The oldest so many."""
    again: bool = False


@dataclass(frozen=True, slots=True)
class Survey:
    """All letters, and what is known of earlier replays."""

    letters: Sequence[Letter]
    known: Known
    known_since_ms: int
    """Where nothing is noted, letters that are newer than this were not sent."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a replay sends, in order, and how many of the wanted letters it does not."""

    send: Sequence[Letter]
    passed_over: Counter[PassedOver]

    def reasons(self) -> Counter[str]:
        return Counter(kind(each.refusal) for each in self.send)

    def topics(self) -> Counter[str]:
        return Counter(each.refusal.topic for each in self.send if each.refusal)


def choose(surveyed: Survey, wanted: Wanted) -> Plan:
    """Which of the letters are sent, and why the others are not; letters that nobody asked for are not counted."""
    send: list[Letter] = []
    passed_over = Counter[PassedOver]()
    for each in surveyed.letters:
        if wanted.places is not None and each.place not in wanted.places:
            continue
        if wanted.reason is not None and (each.refusal is None or wanted.reason not in each.refusal.message):
            continue
        why = _not_sent(each, surveyed, wanted)
        if why is None:
            send.append(each)
        else:
            passed_over[why] += 1
    send.sort(key=lambda each: (each.time_ms, each.place))
    if wanted.limit is not None and len(send) > wanted.limit:
        passed_over[PassedOver.LATER] = len(send) - wanted.limit
        del send[wanted.limit :]
    return Plan(sorted(send, key=lambda each: each.place), passed_over)


def _not_sent(each: Letter, surveyed: Survey, wanted: Wanted) -> PassedOver | None:
    known = surveyed.known.get(each.partition)
    if each.refusal is None:
        return PassedOver.NOT_OURS
    if not wanted.again and known is not None and each.offset in known:
        return PassedOver.REPLAYED
    if not wanted.again and known is None and each.time_ms < surveyed.known_since_ms:
        return PassedOver.UNKNOWN
    if each.refusal.attempts >= wanted.max_attempts:
        return PassedOver.REFUSED_OFTEN
    return None
