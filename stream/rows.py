"""Records of the interactions topic as rows of a log, for the trainer and for `rec2pm interactions export`.

A record becomes a row where a worker takes it for an interaction: with the same item, the same time and the same user.
An item keeps the type that it came with, because the lists that workers send have the items as the catalogue has them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from model.ids import Id
from model.times import TimeRule
from stream.errors import MalformedInteraction
from stream.event import EventReader
from stream.keys import KeyFormat
from stream.wire import Record

MOST_REASONS: Final = 50
"""So many different reasons of refusals are kept. Some name a byte or a size, so there is no end of them."""
OTHER_REASONS: Final = "other reasons"
_HIGHEST: Final = (1 << 63) - 1


@dataclass(slots=True)
class Batch:
    """What was read of one partition and is in no file yet: the rows in columns, and which users were forgotten."""

    first: int
    """The offset from which it was read."""
    next: int
    """The offset to read next."""
    users: list[str] = field(default_factory=list)
    items: list[Id] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    """Epoch ms."""
    offsets: list[int] = field(default_factory=list)
    forgotten: dict[str, int] = field(default_factory=dict)
    """User → the offset of their newest null value: the rows before it are void."""
    nulls: int = 0

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(slots=True)
class Counts:
    """What became of the records so far."""

    rows: int = 0
    refused: int = 0
    """Records that a worker would put among the dead letters."""
    passed_over: int = 0
    """Events of other kinds than those that are interactions."""
    forgotten: int = 0
    """Null values."""
    without_time: int = 0
    """Interactions that say no plausible time, in records that have none either. No log can have them."""
    repeated: int = 0
    """Records that the client brought a second time."""

    @property
    def records(self) -> int:
        return self.rows + self.refused + self.passed_over + self.forgotten + self.without_time + self.repeated

    def words(self) -> str:
        left_out = {
            "refused": self.refused,
            "of other kinds": self.passed_over,
            "without a time": self.without_time,
        }
        said = "".join(f", {count} {what}" for what, count in left_out.items() if count)
        return f"{self.rows} interactions{said}, {self.forgotten} null values"


class Reader:
    """Adds records to the batches of their partitions."""

    def __init__(self, events: EventReader, keys: KeyFormat, times: TimeRule) -> None:
        self._events, self._keys, self._times = events, keys, times
        self.counts = Counts()
        self.why_refused = ""
        """Why the newest refused record was refused."""
        self.reasons: dict[str, int] = {}
        """Reason → how many records were refused for it."""

    def read(self, records: Sequence[Record], batches: dict[int, Batch]) -> None:
        """Add records to the batches of their partitions, which must be there.

        Args:
            records: in the order of the poll, none of them an error.
        """
        counts = self.counts
        users = self._keys.users([record.key() for record in records])
        for record, user in zip(records, users, strict=True):
            batch, offset = batches[record.partition()], record.offset()
            if offset < batch.next:
                counts.repeated += 1
                continue
            batch.next = offset + 1
            value = record.value()
            try:
                if user is None:
                    user = self._keys.user(record.key())  # raises what is wrong
                if value is None:
                    batch.forgotten[user.decode()] = offset
                    batch.nulls += 1
                    counts.forgotten += 1
                    continue
                found = self._events.read(value, user)
            except MalformedInteraction as error:
                counts.refused += 1
                self.why_refused = f"partition {record.partition()}, offset {offset}: {error}"
                known = (reason := str(error)) in self.reasons or len(self.reasons) < MOST_REASONS
                reason = reason if known else OTHER_REASONS
                self.reasons[reason] = self.reasons.get(reason, 0) + 1
                continue
            if found is None:
                counts.passed_over += 1
                continue
            item, time = found
            if time.__class__ is not int:
                time = max(0, record.timestamp()[1])
            assert isinstance(time, int)
            if not self._times.earliest_ms <= time < self._times.latest_ms:
                counts.without_time += 1
                continue
            batch.users.append(user.decode())
            batch.items.append(item)
            batch.times.append(time)
            batch.offsets.append(offset)
            counts.rows += 1


def item_column(items: Sequence[Id]) -> pl.Series:
    """Items as a column: int64 if all of them are such integers, else text. An integer and its text are the same id."""
    whole = all(item.__class__ is int and item <= _HIGHEST for item in items)
    return pl.Series(items if whole else [str(item) for item in items], dtype=pl.Int64 if whole else pl.String)
