"""`rec2pm dead-letters replay`: from the dead letters in Kafka to what is sent, and to the lines that say so."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from confluent_kafka.admin import AdminClient

from stream.commands.dead_letters.choose import Plan, Selection, Survey, choose
from stream.commands.dead_letters.display import histogram
from stream.commands.dead_letters.letters import LetterNotFound, read_letters
from stream.commands.dead_letters.read_notes import offsets_kept_ms, read_notes
from stream.commands.dead_letters.send import Sent, begin, send
from stream.commands.output import counted
from stream.kafka.known_partitioners import Expected
from stream.kafka.read_topic import partitions
from stream.kafka.record_limits import RecordLimits
from stream.kafka.shown_topics import largest_batches

_HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a replay sent, or a preview would send."""

    topic: str
    """Of the dead letters."""
    letters: int
    """How many the topic holds."""
    plan: Plan
    sent: int | None
    """None: a preview. Fewer than planned when letters were deleted in the meantime, or are too large."""
    interactions: str
    """Where letters go."""
    too_large: int = 0
    """Letters that the interactions topic does not take."""


def preview(
    kafka: Mapping[str, Any], app: str, topic: str, interactions: str, selection: Selection, now_ms: int
) -> Outcome:
    """What a replay would send. Nothing is sent, and no other replay is disturbed.

    Raises:
        LetterNotFound: the topic has no letter at a selected place.
    """
    surveyed = survey(kafka, app, topic, interactions, now_ms, "read_uncommitted")
    return Outcome(topic, len(surveyed.letters), _planned(surveyed, selection, topic), None, interactions)


def replay(
    kafka: Mapping[str, Any],
    app: str,
    topic: str,
    interactions: str,
    selection: Selection,
    now_ms: int,
    progress: Callable[[int, int], None],
    partitioner: Expected = "murmur2",
) -> Outcome:
    """Send the selected letters to the interactions topic, each of them once.

    Raises:
        LetterNotFound: the topic has no letter at a selected place; nothing was sent.
    """
    limit = largest_batches(AdminClient({**kafka, "log_level": 3}), [interactions])[interactions]
    limits = RecordLimits(limit, None, limit)
    producer = begin(kafka, app, partitioner, limits)
    surveyed = survey(kafka, app, topic, interactions, now_ms, "read_committed")
    plan = _planned(surveyed, selection, topic)
    sent = Sent()
    if plan.send:
        sent = send(
            kafka, app, topic, producer, surveyed, plan, partitioner=partitioner, limits=limits, progress=progress
        )
    return Outcome(topic, len(surveyed.letters), plan, sent.letters, interactions, sent.too_large)


def survey(
    kafka: Mapping[str, Any],
    app: str,
    topic: str,
    interactions: str,
    now_ms: int,
    isolation: Literal["read_committed", "read_uncommitted"],
) -> Survey:
    """Read all letters up to the present end, and what earlier replays noted.

    Args:
        interactions: the topic that letters go back to.
        isolation: of the notes. read_committed waits for the end of a replay that is under way; read_uncommitted reads
            the notes from before it.
    """
    numbers = partitions(kafka, topic)
    notes = read_notes(kafka, app, topic, numbers, isolation)
    since = 0 if None not in notes.values() else now_ms - offsets_kept_ms(kafka) + _HOUR_MS
    return Survey(list(read_letters(kafka, topic, numbers)), notes, since, interactions)


def _planned(surveyed: Survey, selection: Selection, topic: str) -> Plan:
    missing = sorted((selection.places or frozenset()) - {each.place for each in surveyed.letters})
    if missing:
        raise LetterNotFound(topic, missing)
    return choose(surveyed, selection)


def lines(outcome: Outcome) -> list[str]:
    """What `rec2pm dead-letters replay` prints."""
    if not outcome.letters:
        return [f"no dead letters in {outcome.topic}"]
    planned = len(outcome.plan.send)
    if not planned:
        printed = ["nothing to replay"]
    elif outcome.sent is None:
        printed = [f"would replay {counted(planned, 'dead letter')} to {outcome.interactions}"]
    else:
        printed = [f"replayed {counted(outcome.sent, 'dead letter')} to {outcome.interactions}"]
    printed += histogram(outcome.plan.reasons())
    if outcome.too_large:
        printed.append(
            f"not sent because {outcome.interactions} does not take records as large: {outcome.too_large}; raise its "
            "max.message.bytes, then replay them"
        )
    if outcome.sent is not None and outcome.sent + outcome.too_large < planned:
        printed.append(
            f"not sent because they were deleted in the meantime: {planned - outcome.sent - outcome.too_large}"
        )
    if outcome.plan.not_sent:
        printed += ["not sent:", *histogram({why.value: count for why, count in outcome.plan.not_sent.items()})]
    if outcome.sent is None and planned:
        printed.append("nothing was sent: add --execute to send")
    return printed
