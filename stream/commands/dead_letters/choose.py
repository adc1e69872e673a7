"""Which dead letters a replay sends, and why it does not send the others. Nothing here asks Kafka."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from stream.commands.dead_letters.letters import Letter, Place, kind
from stream.commands.dead_letters.notes import Replayed

Notes: TypeAlias = Mapping[int, Replayed | None]
"""Partition → the letters that were replayed; None where Kafka has no note of it."""


class NotSent(StrEnum):
    """Why a letter that was selected is not sent."""

    REPLAYED = "already replayed (--again sends them once more)"
    REFUSED_OFTEN = "refused too often (--max-attempts)"
    UNKNOWN = "so old that Kafka no longer knows whether they were replayed (--again sends them)"
    NOT_OURS = "without the headers that say where they came from"
    ELSEWHERE = "not from REC2PM_INTERACTIONS_TOPIC, the only topic that a replay writes to"
    INCOMPLETE = "without the value, headers or key of their record, which were too large for a dead letter"
    BEYOND_LIMIT = "beyond --limit"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters an operator wants to replay."""

    places: frozenset[Place] | None = None
    """None: all."""
    reason: str | None = None
    """Only those whose reason contains this text."""
    max_attempts: int = 3
    limit: int | None = None
    """At most so many, the oldest."""
    again: bool = False


@dataclass(frozen=True, slots=True)
class Survey:
    """All letters, and what earlier replays noted."""

    letters: Sequence[Letter]
    notes: Notes
    noted_since_ms: int
    """Where there is no note, letters that are newer than this were not sent."""
    interactions: str
    """The topic that letters go back to. What a header says is no permission to write elsewhere."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The letters that a replay sends, in order, and how many of the selected ones it does not send."""

    send: Sequence[Letter]
    not_sent: Counter[NotSent]

    def reasons(self) -> Counter[str]:
        return Counter(kind(each.refusal) for each in self.send)


def choose(survey: Survey, selection: Selection) -> Plan:
    """Which of the selected letters are sent, and why the others are not; letters outside the selection do not
    count.
    """
    send: list[Letter] = []
    not_sent = Counter[NotSent]()
    for each in survey.letters:
        if selection.places is not None and each.place not in selection.places:
            continue
        if selection.reason is not None and (each.refusal is None or selection.reason not in each.refusal.message):
            continue
        obstacle = _obstacle(each, survey, selection)
        if obstacle is None:
            send.append(each)
        else:
            not_sent[obstacle] += 1
    send.sort(key=lambda each: (each.time_ms, each.place))
    if selection.limit is not None and len(send) > selection.limit:
        not_sent[NotSent.BEYOND_LIMIT] = len(send) - selection.limit
        del send[selection.limit :]
    return Plan(sorted(send, key=lambda each: each.place), not_sent)


def _obstacle(each: Letter, survey: Survey, selection: Selection) -> NotSent | None:
    replayed = survey.notes.get(each.partition)
    if each.refusal is None:
        return NotSent.NOT_OURS
    if each.refusal.topic != survey.interactions:
        return NotSent.ELSEWHERE
    if each.refusal.left_out:
        return NotSent.INCOMPLETE
    if not selection.again and replayed is not None and each.offset in replayed:
        return NotSent.REPLAYED
    if not selection.again and replayed is None and each.time_ms < survey.noted_since_ms:
        return NotSent.UNKNOWN
    if each.refusal.attempts >= selection.max_attempts:
        return NotSent.REFUSED_OFTEN
    return None
