"""What one poll brought: decoded, grouped by user, with what could not be decoded set aside.

The hot path: one pass over the records, no object per interaction. A user's interactions of one poll are a *run*; a null value (forget
this user) ends a run and starts a fresh one, so that the result is the same wherever the broker cut its polls.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from state.interaction import NAMED, item_key
from stream.errors import MalformedInteraction
from stream.wire import DeadLetter, Record, dead_letter, interaction, user_id


class Run:
    """One user's consecutive interactions within a poll; mutable, because it is filled record by record."""

    __slots__ = ("fresh", "items", "offsets", "partition", "times", "user")

    def __init__(self, partition: int, user: bytes, *, fresh: bool) -> None:
        self.partition = partition
        self.user = user
        self.fresh = fresh
        """The user was forgotten right before; what the store has about them no longer counts."""
        self.items: list[int] = []
        self.times: list[int] = []
        self.offsets: list[int] = []


@dataclass(slots=True)
class Taken:
    """A poll as values."""

    runs: dict[int, dict[bytes, Run]] = field(default_factory=dict)
    """Partition → user → their last run."""
    superseded: list[Run] = field(default_factory=list)
    """Runs that a null value ended within the same poll: their lists are due, their state is gone."""
    dead: list[DeadLetter] = field(default_factory=list)
    names: dict[int, dict[int, str]] = field(default_factory=dict)
    """Partition → hashed item key → text."""
    next_offsets: dict[int, int] = field(default_factory=dict)
    """Partition → the last record's offset + 1."""
    records: int = 0
    interactions: int = 0
    forgotten: int = 0


def decode(records: Iterable[Record], topic: str) -> Taken:
    """Decode a poll's records and group them by partition and user.

    Args:
        records: in the order of the poll, none of them an error.
        topic: named in dead letters.
    """
    taken = Taken()
    partition = -1
    runs: dict[bytes, Run] = {}
    names: Mapping[int | str, int] = {}
    offset = 0
    for record in records:
        if record.partition() != partition:
            if partition >= 0:
                taken.next_offsets[partition] = offset + 1
            partition = record.partition()
            runs = taken.runs.setdefault(partition, {})
        offset = record.offset()
        key, value = record.key(), record.value()
        taken.records += 1
        try:
            run = runs.get(key)  # type: ignore[arg-type]  # a null key is not there
            if run is None:
                user = user_id(key)
                run = Run(partition, user, fresh=False)
                if value is not None:
                    decoded = interaction(value)  # before the run is kept: a malformed record alone is no touch
                    runs[user] = run
            elif value is not None:
                decoded = interaction(value)
            if value is None:
                taken.forgotten += 1
                if run.items:
                    taken.superseded.append(run)
                runs[run.user] = Run(partition, run.user, fresh=True)
                continue
        except MalformedInteraction as error:
            taken.dead.append(dead_letter(record, topic, error))
            continue
        item = decoded.item
        if item.__class__ is not int or not 0 <= item < NAMED:
            text, item = item, item_key(item)
            if item >= NAMED:
                taken.names.setdefault(partition, {})[item] = str(text)
        time = decoded.ts
        run.items.append(item)
        run.times.append(record.timestamp()[1] if time is None else time)
        run.offsets.append(offset)
    if partition >= 0:
        taken.next_offsets[partition] = offset + 1
    return taken
