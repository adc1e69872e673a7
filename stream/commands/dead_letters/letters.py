"""Dead letters, read from their topic."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

import msgspec
from confluent_kafka import Message

from stream.commands.dead_letters.notes import Replayed
from stream.kafka.read_topic import committed_records, partitions
from stream.wire import Header, Refusal, refusal

Place: TypeAlias = tuple[int, int]
"""Partition and offset of a letter in the dead-letter topic."""

_NUMBERS: Final = re.compile(r"0x[0-9a-f]+|\d+")
NOT_OURS: Final = "not a dead letter of rec2pm: its headers are missing"


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


def letters(kafka: Mapping[str, Any], topic: str, numbers: Sequence[int]) -> Iterator[Letter]:
    """Every letter up to the topic's present end, partition by partition."""
    for number in numbers:
        for message in committed_records(kafka, topic, number):
            yield letter(message)


def letter(message: Message) -> Letter:
    said = refusal(headers_of(message))
    if said is not None:
        said = msgspec.structs.replace(said, headers=[])
    return Letter(message.partition() or 0, message.offset() or 0, message.timestamp()[1], said)


def headers_of(message: Message) -> list[Header]:
    return cast(
        "list[Header]", message.headers() or []
    )  # the client gives what it was given: a list of (name, bytes or None)


def found(kafka: Mapping[str, Any], topic: str, place: Place) -> Message | None:
    """The letter at a place; None when there is none, or not any more."""
    number, offset = place
    if number in partitions(kafka, topic):
        for message in committed_records(kafka, topic, number, offset):
            return message if message.offset() == offset else None
    return None


def kind(said: Refusal | None) -> str:
    """A letter's reason with its numbers taken out, so that equal ones can be counted."""
    if said is None:
        return NOT_OURS
    return _NUMBERS.sub("N", said.message) or said.exception


def written(place: Place) -> str:
    return f"{place[0]}:{place[1]}"


def is_replayed(each: Letter, replayed: Mapping[int, Replayed | None]) -> bool:
    known = replayed.get(each.partition)
    return known is not None and each.offset in known
