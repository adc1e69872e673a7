"""`rec2pm models history --user`: which versions made a user's lists, from the marks in the changelog."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import click

from state.codec import Mark
from stream.commands.forget_user import look
from stream.commands.models.table import table
from stream.commands.output import json_line
from stream.kafka.known_partitioners import Expected
from stream.kafka.marks import marks
from stream.kafka.names import changelog_topic
from stream.kafka.partitioner import partition_of
from stream.kafka.read_topic import partitions
from stream.keys import KeyFormat
from stream.promotion.record import Models, in_words, iso

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Served:
    """A version served a partition of the input, from a mark until the next one. `until_ms`: None if it still does."""

    partition: int
    mark: Mark
    until_ms: int | None


def at_ms(text: str) -> int:
    """A time as epoch ms. Raises BadParameter: it is none."""
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a time, as 2026-11-28T22:40:00Z is") from None
    given = given if given.tzinfo is not None else given.replace(tzinfo=UTC)
    return (given - _EPOCH) // (_EPOCH.resolution * 1000)


def served(
    kafka: Mapping[str, Any],
    app: str,
    user: str,
    *,
    interactions: str,
    keys: KeyFormat,
    partitioner: Expected,
) -> list[Served]:
    """The versions that served the partition of a user, oldest first. Several partitions if producers disagree.

    Raises:
        BadParameter: no key of the interactions is this user.
        TopicsUnusable, BehindOpenTransaction, KafkaUnusable: a topic cannot be read.
    """
    try:
        key = keys.key(user)
    except ValueError as error:
        raise click.BadParameter(f"{user!r} {error}") from error
    numbers = partitions(kafka, interactions)
    if partitioner == "ignore":
        found = [each.partition for each in look(kafka, changelog_topic(app), user.encode(), numbers).stored]
    else:
        found = [partition_of(key, len(numbers), partitioner)]
    return [each for number in found for each in spans(number, marks(kafka, app, number))]


def spans(partition: int, found: Sequence[Mark]) -> list[Served]:
    """Each version, until the mark of the next one. `found`: the marks of a partition, oldest first."""
    return [
        Served(partition, mark, found[at + 1].at_ms if at + 1 < len(found) else None) for at, mark in enumerate(found)
    ]


def at(found: Sequence[Served], when_ms: int) -> list[Served]:
    """Of each partition, the version that served it at a time."""
    return [each for each in found if each.mark.at_ms <= when_ms and (each.until_ms is None or when_ms < each.until_ms)]


def served_lines(found: Sequence[Served], models: Models, interactions: str) -> Iterator[str]:
    """The newest first, with the promotion behind each."""
    heads = ("FROM", "UNTIL", "VERSION", "INPUT", "BECAUSE")
    yield from table(
        heads,
        [
            (
                iso(each.mark.at_ms),
                "-" if each.until_ms is None else iso(each.until_ms),
                each.mark.version,
                f"{interactions}[{each.partition}] from {each.mark.offset}",
                because(each.mark, models),
            )
            for each in reversed(found)
        ],
    )


def because(mark: Mark, models: Models) -> str:
    return in_words_of(mark.promotion, models)


def in_words_of(promotion: str, models: Models) -> str:
    """Why a version serves. `promotion`: the id of the promotion; empty without one."""
    if not promotion:
        return "a setting named it"
    record = models.history.get(promotion)
    return f"promotion {promotion}" if record is None else in_words(record)


def served_json(found: Sequence[Served], models: Models, interactions: str) -> Iterator[str]:
    for each in reversed(found):
        yield json_line(
            {
                "version": each.mark.version,
                "from": iso(each.mark.at_ms),
                "until": None if each.until_ms is None else iso(each.until_ms),
                "topic": interactions,
                "partition": each.partition,
                "offset": each.mark.offset,
                "memory_format": each.mark.memory_format,
                "promotion": models.history.get(each.mark.promotion) or each.mark.promotion or None,
            }
        )
