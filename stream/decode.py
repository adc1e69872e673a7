"""Decode one poll: group its interactions by user, and set aside what cannot be decoded.

This is the hot path: one pass over the records, no object per interaction. A user's interactions in one poll are a
*run*. A null value (forget this user) ends a run and starts a fresh one, so it does not matter where polls end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from model.errors import ModelFailed
from state.interaction import NAMED, item_key
from stream.errors import MalformedInteraction, StepAborted
from stream.event import EventReader, Implausible
from stream.keys import KeyFormat
from stream.wire import DeadLetter, Record, dead_letter

Place: TypeAlias = tuple[int, int]
"""Partition and offset of a record."""

Flat: TypeAlias = list[int]
"""A run's interactions: item key, time, offset of each. One list per user, as a poll has thousands of users."""


@dataclass(slots=True, eq=False)
class Run:
    """One user's consecutive interactions within a poll, in columns."""

    partition: int
    user: bytes
    fresh: bool
    """The user was forgotten right before this run; what the store has about them no longer counts."""
    items: Sequence[int]
    times: Sequence[int]
    offsets: Sequence[int]
    superseded: bool = False
    """A null value ended the run within the same poll: its lists are published, its state is deleted."""
    good: int = 0
    """This number of its first interactions is known not to fail the model (`stream.failing_records`)."""

    def first(self, count: int) -> "Run":
        """The run with only its first `count` interactions."""
        return replace(self, items=self.items[:count], times=self.times[:count], offsets=self.offsets[:count])

    def without(self, at: int) -> "Run":
        """The run without one of its interactions."""
        items, times, offsets = ([*column[:at], *column[at + 1 :]] for column in (self.items, self.times, self.offsets))
        return replace(self, items=items, times=times, offsets=offsets)


def columns(partition: int, user: bytes, flat: Flat, *, fresh: bool, superseded: bool = False) -> Run:
    """Make a run from its flat form."""
    return Run(partition, user, fresh, flat[::3], flat[1::3], flat[2::3], superseded)


@dataclass(slots=True)
class Polled:
    """A poll as values."""

    records: int = 0
    runs: dict[int, dict[bytes, Flat]] = field(default_factory=dict)
    """Partition → user → their last run."""
    fresh: dict[int, set[bytes]] = field(default_factory=dict)
    """Partition → users who were forgotten right before their last run."""
    superseded: list[Run] = field(default_factory=list)
    """Runs that a null value ended within the same poll: their lists are published, their state is deleted."""
    items: list[int] = field(default_factory=list)
    """The item key of every interaction."""
    dead: list[DeadLetter] = field(default_factory=list)
    names: dict[int, dict[int, str]] = field(default_factory=dict)
    """Partition → hashed item key → text."""
    next_offsets: dict[int, int] = field(default_factory=dict)
    """Partition → the offset to read next. `decode` sets it to the last record's offset + 1."""
    forgotten: int = 0
    """Null values."""
    passed_over: int = 0
    """Events of other kinds than those that are interactions."""
    implausible: list[Implausible] = field(default_factory=list)
    """The times that are not plausible. The records' own timestamps stand for them."""


def decode(
    records: Sequence[Record],
    topic: str,
    expected: Mapping[int, int],
    refused: Mapping[Place, ModelFailed],
    events: EventReader,
    keys: KeyFormat,
) -> Polled:
    """Decode a poll's records and group them by partition and user.

    Args:
        records: in the order of the poll, none of them an error.
        topic: named in dead letters.
        expected: partition → the lowest offset that its next record can have.
        refused: the records that the model fails on.
        events: reads the values.
        keys: reads the keys.

    Raises:
        StepAborted: a record came a second time. librdkafka has been seen to go back to an earlier offset by itself; an
            interaction must not count twice.
    """
    polled = Polled(records=len(records))
    noted, read = polled.items.append, events.read
    partition = -1
    runs: dict[bytes, Flat] = {}
    next_offset = 0
    next_offsets = polled.next_offsets
    users = keys.users([record.key() for record in records])
    for record, user in zip(records, users, strict=True):
        if record.partition() != partition:
            if partition >= 0:
                next_offsets[partition] = next_offset
            partition = record.partition()
            runs = polled.runs.setdefault(partition, {})
            next_offset = next_offsets.get(partition, expected.get(partition, 0))
        offset = record.offset()
        if offset < next_offset:
            raise StepAborted(
                f"the client went back to offset {offset} of {topic}[{partition}], where {next_offset} was expected",
                reason="offset_went_back",
            )
        next_offset = offset + 1
        if refused and (failed := refused.get((partition, offset))) is not None:
            polled.dead.append(dead_letter(record, topic, failed))
            continue
        value = record.value()
        try:
            if user is None:
                user = keys.user(record.key())  # raises what is wrong
            if value is None:
                _forget(polled, partition, user)
                continue
            found = read(value, user)
        except MalformedInteraction as error:
            polled.dead.append(dead_letter(record, topic, error))
            continue
        if found is None:
            polled.passed_over += 1
            continue
        item, time = found
        if item.__class__ is not int or not 0 <= item < NAMED:
            item = _named(item, polled.names.setdefault(partition, {}))
        if time.__class__ is not int:
            if time is not None:
                polled.implausible.append(time)  # type: ignore[arg-type]
            time = max(0, record.timestamp()[1])
        noted(item)
        if (run := runs.get(user)) is None:
            runs[user] = [item, time, offset]
        else:
            run += (item, time, offset)
    if partition >= 0:
        next_offsets[partition] = next_offset
    return polled


def _forget(polled: Polled, partition: int, user: bytes) -> None:
    """End the user's run, and start a fresh one."""
    runs, fresh = polled.runs[partition], polled.fresh.setdefault(partition, set())
    if flat := runs.get(user):
        polled.superseded.append(columns(partition, user, flat, fresh=user in fresh, superseded=True))
    runs[user] = []
    fresh.add(user)
    polled.forgotten += 1


def _named(item: int | str, names: dict[int, str]) -> int:
    """The key of an item that is not its own key. The text of a hashed item is noted."""
    key = item_key(item)
    if key >= NAMED:
        names[key] = str(item)
    return key
