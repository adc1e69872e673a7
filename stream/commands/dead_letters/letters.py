"""Dead letters, read from their topic."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

import msgspec
from confluent_kafka import Message

from stream.commands.dead_letters.notes import Replayed
from stream.errors import BehindOpenTransaction
from stream.kafka.read_topic import WAIT_S, committed_records, partitions
from stream.wire import Header, Refusal, refusal

Place: TypeAlias = tuple[int, int]
"""Partition and offset of a letter in the dead-letter topic."""

NOT_OURS: Final = "not a dead letter of rec2pm: its headers are missing"
_NUMBERS: Final = re.compile(r"0x[0-9a-f]+|\d+")


class LetterNotFound(Exception):
    """The dead-letter topic has no record at a place."""

    def __init__(self, topic: str, places: Sequence[Place]) -> None:
        named = ", ".join(map(written, places))
        super().__init__(f"{topic} has no dead letter {named} (any more): `rec2pm dead-letters list` shows them")


class Letter(msgspec.Struct, frozen=True):
    """One dead letter, without its bytes."""

    partition: int
    offset: int
    time_ms: int
    """When it was refused, epoch ms."""
    refusal: Refusal | None
    """Without headers; None when it is not one of ours."""

    @property
    def place(self) -> Place:
        return self.partition, self.offset


def read_letters(kafka: Mapping[str, Any], topic: str, numbers: Sequence[int]) -> Iterator[Letter]:
    """Every letter up to the topic's present end, partition by partition.

    Raises:
        BehindOpenTransaction: letters wait behind an open transaction.
    """
    for number in numbers:
        for message in committed_records(kafka, topic, number):
            yield letter_of(message)


def readable_letters(
    kafka: Mapping[str, Any], topic: str, numbers: Sequence[int], unread: list[BehindOpenTransaction]
) -> Iterator[Letter]:
    """The same, but what waits behind open transactions is noted in `unread`, and the other letters are returned."""
    for number in numbers:
        try:
            # One wait is long enough for the transactions in all partitions.
            for message in committed_records(kafka, topic, number, wait_s=0.0 if unread else WAIT_S):
                yield letter_of(message)
        except BehindOpenTransaction as behind:
            unread.append(behind)


def letter_of(message: Message) -> Letter:
    refused = refusal(headers_of(message))
    if refused is not None:
        refused = msgspec.structs.replace(refused, headers=[])
    return Letter(message.partition() or 0, message.offset() or 0, message.timestamp()[1], refused)


def headers_of(message: Message) -> list[Header]:
    # The client returns what it was given: a list of (name, bytes or None).
    return cast("list[Header]", message.headers() or [])


def read_letter(kafka: Mapping[str, Any], topic: str, place: Place) -> Message:
    """The record of the letter at a place.

    Raises:
        LetterNotFound: there is none.
    """
    number, offset = place
    if number in partitions(kafka, topic):
        for message in committed_records(kafka, topic, number, offset):
            if message.offset() == offset:
                return message
            break
    raise LetterNotFound(topic, [place])


def written(place: Place) -> str:
    return f"{place[0]}:{place[1]}"


def kind(refused: Refusal | None) -> str:
    """A letter's reason with its numbers removed, so that equal reasons can be counted."""
    if refused is None:
        return NOT_OURS
    return _NUMBERS.sub("N", refused.message) or refused.exception


def is_replayed(each: Letter, notes: Mapping[int, Replayed | None]) -> bool:
    replayed = notes.get(each.partition)
    return replayed is not None and each.offset in replayed
