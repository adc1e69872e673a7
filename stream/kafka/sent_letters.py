"""The dead letters of a transaction: sent whole, or without the parts that Kafka does not take.

Only Kafka knows whether a letter fits, because its limit holds after compression. So a letter is first sent whole. If
the broker refuses it, the transaction is aborted, and the next attempt sends this letter without its largest parts.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from confluent_kafka import KafkaError, Message

from stream.wire import LETTER_HEADERS_BYTES, DeadLetter, letter_bytes, reduced, refusal

logger = logging.getLogger(__name__)

_Place: TypeAlias = tuple[int, int]
_ATTEMPTS: Final = 3
"""From so many refusals in a row on, no letter above the limit is sent whole."""


class SentLetters:
    """What is known about letters that Kafka refused as too large. The record's partition and offset name a letter."""

    def __init__(self, topic: str, limit: int | None) -> None:
        """Args:
        topic: of the dead letters.
        limit: its `max.message.bytes`; None if Kafka does not show it.
        """
        self._topic = topic
        self._limit = limit
        self._limits: dict[_Place, int] = {}
        """Letters that are sent with at most so many bytes."""
        self._refused: list[DeadLetter] = []
        """Refused in the present attempt, as they were sent."""
        self.sent: list[DeadLetter] = []
        """In the present attempt."""
        self._attempts = 0
        """How often in a row letters were refused."""

    def fitted(self, letter: DeadLetter) -> DeadLetter:
        """The letter as it is sent in this attempt."""
        if not self._limits or (limit := self._limits.get(_place(letter))) is None:
            return letter
        return self._reduced(letter, limit)

    def fitted_here(self, letter: DeadLetter) -> DeadLetter:
        """The letter without the parts that make it larger than the producer takes."""
        return self._reduced(letter, self._limit or LETTER_HEADERS_BYTES)

    def _reduced(self, letter: DeadLetter, limit: int) -> DeadLetter:
        smaller = reduced(letter, limit)
        told = refusal(smaller.headers)
        if told is not None:
            logger.warning(
                "dead letter without %s partition=%d offset=%d bytes=%d: it is larger than %s takes",
                ", ".join(each.part for each in told.left_out),
                told.partition,
                told.offset,
                letter_bytes(letter),
                self._topic,
            )
        return smaller

    def delivery(self, letter: DeadLetter) -> Callable[[KafkaError | None, Message], None]:
        """The callback for a letter that is sent."""
        self.sent.append(letter)
        return partial(self._delivered, letter)

    def _delivered(self, letter: DeadLetter, error: KafkaError | None, _: Message) -> None:
        if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            self._refused.append(letter)

    def begin(self) -> None:
        """An attempt begins."""
        self._refused.clear()
        self.sent.clear()

    def settle(self) -> None:
        """The letters are published."""
        self._limits.clear()
        self.sent.clear()
        self._attempts = 0

    def learn(self) -> str | None:
        """After the broker refused records as too large: what the next attempt does differently; None if the refused
        ones were no letters, or nothing can be left out any more.
        """
        if not self._refused:
            return None
        self._attempts += 1
        # Kafka names few refused letters at a time. If there are many, those that might fit compressed are not tried.
        letters = self._refused if self._attempts < _ATTEMPTS else [*self._refused, *self.sent]
        above = min(map(letter_bytes, self._refused)) - 1 if self._limit is None else self._limit
        # Were all below the known limit, it would have been lowered since: a restart asks for it again.
        learned = {_place(each) for each in letters if letter_bytes(each) > max(above, LETTER_HEADERS_BYTES)}
        self._limits |= dict.fromkeys(learned, above // 2 if self._limit is None else self._limit)
        if not learned:
            return None
        return f"{self._topic} does not take {len(learned)} dead letters as large as they are: the next attempt leaves out values"


def _place(letter: DeadLetter) -> _Place:
    told = refusal(letter.headers)
    return (-1, -1) if told is None else (told.partition, told.offset)
