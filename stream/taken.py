"""What one poll brought: decoded, grouped by user, with what could not be decoded set aside.

The hot path: one pass over the records, no object per interaction. A user's interactions of one poll are a *run*; a null value (forget
this user) ends a run and starts a fresh one, so that the result is the same wherever the broker cut its polls.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from state.interaction import MAX_ID_BYTES, NAMED, item_key
from stream.wire import UNREADABLE, DeadLetter, Record, dead_letter, from_msgpack, interaction, item_text, malformed, user_id


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
    offset = 0
    for record in records:
        if record.partition() != partition:
            if partition >= 0:
                taken.next_offsets[partition] = offset + 1
            partition = record.partition()
            runs = taken.runs.setdefault(partition, {})
        offset = record.offset()
        key, value = record.key(), record.value()
        try:
            run = runs.get(key)  # type: ignore[arg-type]  # a null key is not there
            if run is None and not (key and len(key) <= MAX_ID_BYTES and key.isascii()):
                user_id(key)  # says what is wrong, or that it is UTF-8 beyond ASCII
            if value is None:
                taken.forgotten += 1
                if run is not None and run.items:
                    taken.superseded.append(run)
                runs[key] = Run(partition, key, fresh=True)  # type: ignore[index,arg-type]  # a null key is refused by now
                continue
            # MessagePack maps take the short way; the rest is told apart, or refused, in `interaction`.
            decoded = from_msgpack(value) if value and value[0] > 0x7F else interaction(value)
            item = decoded.item
            if item.__class__ is not int or not 0 <= item < NAMED:
                item = _named(item, taken.names.setdefault(partition, {}))
        except UNREADABLE as error:
            taken.dead.append(dead_letter(record, topic, malformed(value, error)))
            continue
        if run is None:
            run = runs[key] = Run(partition, key, fresh=False)  # type: ignore[index,arg-type]
        run.items.append(item)
        time = decoded.ts
        run.times.append(record.timestamp()[1] if time is None else time)
        run.offsets.append(offset)
    if partition >= 0:
        taken.next_offsets[partition] = offset + 1
    return taken


def _named(item: int | str, names: dict[int, str]) -> int:
    """The key of an item that is not its own key; hashed ones are noted with their text."""
    text = item_text(item) if isinstance(item, str) else str(item)
    key = item_key(item)
    if key >= NAMED:
        names[key] = text
    return key
