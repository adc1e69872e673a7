"""What a list was made from: the user's interactions up to it, and which versions served the partition.

The interactions come from the topic, or from a log that `rec2pm interactions export` wrote. The changelog says where
the application began, which versions served it from which offset on, and how many interactions of the user are
remembered. So an answer from part of a history is refused, not given.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import polars as pl
from confluent_kafka import Message

from model.log import open_log
from state.codec import MARK, POSITION, Mark, read_mark, read_number, user_prefix
from state.interaction import NAMED, item_key
from stream.decode import Polled, decode
from stream.errors import ListUnexplained, MalformedInteraction
from stream.event import EventReader
from stream.kafka.names import changelog_topic
from stream.kafka.read_topic import committed_records, partitions
from stream.keys import KeyFormat
from stream.replay.counted import placed
from stream.settings import Settings
from stream.state_rows import rows
from stream.wire import Record

_TOGETHER: Final = 5000
_PARTITION: Final = b"\x00"
"""Keys of a partition's own records begin with it."""


@dataclass(frozen=True, slots=True)
class History:
    """The interactions of one user, oldest first. The list that is explained was made after the last of them."""

    partition: int
    user: bytes
    items: list[int]
    """Item keys."""
    times: list[int]
    """Epoch ms."""
    offsets: list[int]
    names: dict[int, str]
    """Hashed item key → text."""

    def text(self, item: int) -> str:
        """The id of an item key."""
        return self.names.get(item, str(item))

    def polled(self, start: int, end: int, without: frozenset[int] = frozenset()) -> Polled:
        """Some consecutive interactions as one poll, without those that have certain offsets."""
        flat, items = [], []
        for item, time, offset in zip(
            self.items[start:end], self.times[start:end], self.offsets[start:end], strict=True
        ):
            if offset not in without:
                flat += [item, time, offset]
                items.append(item)
        return Polled(
            records=len(items),
            runs={self.partition: {self.user: flat} if flat else {}},
            items=items,
            names={self.partition: {item: self.names[item] for item in items if item >= NAMED}},
            next_offsets={self.partition: self.offsets[end - 1] + 1},
        )


@dataclass(frozen=True, slots=True)
class Partition:
    """What the changelog says of a partition."""

    marks: list[Mark]
    """Oldest first."""
    position: int
    """The state has every record before this offset."""
    own: dict[bytes, bytes]
    users: dict[bytes, bytes]
    """The records of the user."""

    def taken(self, number: int) -> int:
        """How many interactions of the user are remembered."""
        return sum(row.taken for row in rows(iter(sorted({**self.own, **self.users}.items())), number))


def of_topic(
    settings: Settings, kafka: Mapping[str, Any], partition: int, offset: int, progress: Callable[[int, int], None]
) -> tuple[History, list[Mark]]:
    """The history and the marks of the partition, read from Kafka.

    Args:
        settings: how records are read, and the names of the topics.
        kafka: options of a client, `bootstrap.servers` among them.
        progress: called with (offsets read, offsets in all).

    Raises:
        ListUnexplained: there is no such interaction, or not everything that came before it is there.
        TopicsUnusable, BehindOpenTransaction, KafkaUnusable: a topic cannot be read.
    """
    topic = settings.interactions_topic
    _refuse_partition(kafka, topic, partition)
    events, keys = EventReader(settings.fields, settings.times), KeyFormat(settings.key_format)
    user = _user_at(kafka, topic, partition, offset, events, keys)
    stored = _stored(kafka, settings.app, partition, user)
    _refuse_untaken(stored, settings.app, topic, partition, offset)
    begin = stored.marks[0].offset
    mine = _records_of(kafka, topic, partition, user, begin, stored.position, keys, progress)
    before, after = ([each for each in mine if (each.offset() <= offset) is early] for early in (True, False))
    if any(each.value() is None for each in after):
        raise ListUnexplained(
            f"the user of {topic}[{partition}] at offset {offset} was forgotten later: what was forgotten is not computed again"
        )
    history = _decoded(before, topic, partition, user, events, keys)
    found = len(history.offsets) + len(_decoded(after, topic, partition, user, events, keys).offsets)
    if (taken := stored.taken(partition)) > found:
        raise ListUnexplained(
            f"{taken} interactions of this user are remembered, and {topic}[{partition}] has {found} of them: the others were "
            "deleted (retention), or came with `rec2pm state import`. --log takes a log that has all of them"
        )
    return history, stored.marks


def of_log(
    settings: Settings, kafka: Mapping[str, Any], log: Path, partition: int, offset: int
) -> tuple[History, list[Mark]]:
    """The history from a log with the partitions and offsets of Kafka, and the marks of the partition from Kafka.

    Raises:
        ListUnexplained: the log has no such interaction, or no partitions and offsets.
        LogUnreadable: the log cannot be read.
        TopicsUnusable, BehindOpenTransaction, KafkaUnusable: a topic cannot be read.
    """
    rows_of = placed(str(log), open_log(log))
    if missing := {"partition", "offset"} - set(rows_of.collect_schema().names()):
        raise ListUnexplained(
            f"{log} has no column {' and no column '.join(sorted(missing))}: `rec2pm interactions export` writes a log that has them"
        )
    here = rows_of.filter(pl.col("partition") == partition, pl.col("offset") <= offset)
    last = here.filter(pl.col("offset") == offset).collect()
    if len(last) != 1:
        raise ListUnexplained(
            f"{log} has {len(last)} interactions with partition {partition} and offset {offset}, expected one"
        )
    user = str(last["user_id"][0])
    stored = _stored(kafka, settings.app, partition, user.encode())
    _refuse_untaken(stored, settings.app, settings.interactions_topic, partition, offset)
    mine = (
        here.filter(pl.col("user_id").cast(pl.String) == user, pl.col("offset") >= stored.marks[0].offset)
        .sort("offset")
        .collect()
    )
    texts = mine["item_id"].cast(pl.String).to_list()
    items = [item_key(text) for text in texts]
    names = {key: text for key, text in zip(items, texts, strict=True) if key >= NAMED}
    history = History(partition, user.encode(), items, mine["timestamp"].to_list(), mine["offset"].to_list(), names)
    return history, stored.marks


def _refuse_partition(kafka: Mapping[str, Any], topic: str, partition: int) -> None:
    numbers = partitions(kafka, topic)
    if partition not in numbers:
        raise ListUnexplained(f"{topic} has no partition {partition}: its partitions are 0 to {numbers[-1]}")


def _user_at(
    kafka: Mapping[str, Any], topic: str, partition: int, offset: int, events: EventReader, keys: KeyFormat
) -> bytes:
    """The user of the interaction at an offset."""
    where = f"{topic}[{partition}] at offset {offset}"
    record = next(iter(committed_records(kafka, topic, partition, offset, offset + 1)), None)
    if record is None:
        raise ListUnexplained(
            f"{where} has no record: it was deleted (retention), is a marker of a transaction, or is not there yet"
        )
    try:
        user, value = keys.user(record.key()), record.value()
        if value is None:
            raise ListUnexplained(f"{where} forgets its user: no list is made after it")
        if events.read(value, user) is None:
            raise ListUnexplained(f"{where} is an event of another kind (REC2PM_EVENTS): no list is made after it")
    except MalformedInteraction as error:
        raise ListUnexplained(f"{where} is no interaction: {error}") from error
    return user


def _stored(kafka: Mapping[str, Any], app: str, number: int, user: bytes) -> Partition:
    prefix, own, users = user_prefix(user), dict[bytes, bytes](), dict[bytes, bytes]()
    for message in committed_records(kafka, changelog_topic(app), number):
        key, value = message.key() or b"", message.value()
        if key.startswith((prefix, _PARTITION)):
            kept = own if key.startswith(_PARTITION) else users
            if value is None:
                kept.pop(key, None)
            else:
                kept[key] = value
    marks = [read_mark(value) for key, value in sorted(own.items()) if key.startswith(MARK)]
    return Partition(marks, read_number(own[POSITION]) if POSITION in own else 0, own, users)


def _refuse_untaken(stored: Partition, app: str, topic: str, partition: int, offset: int) -> None:
    if not stored.marks or stored.position <= offset:
        raise ListUnexplained(
            f"no worker of {app} has taken offset {offset} of {topic}[{partition}] yet: its state goes to offset {stored.position}"
        )
    if offset < (begin := stored.marks[0].offset):
        raise ListUnexplained(
            f"{app} began at offset {begin} of {topic}[{partition}]: no worker of it has made a list at offset {offset}"
        )


def _records_of(
    kafka: Mapping[str, Any],
    topic: str,
    partition: int,
    user: bytes,
    begin: int,
    until: int,
    keys: KeyFormat,
    progress: Callable[[int, int], None],
) -> list[Record]:
    """The records of one user in a part of a partition."""
    found: list[Record] = []
    batch: list[Message] = []

    def sift() -> None:
        users = keys.users([each.key() for each in batch])
        found.extend(cast("Record", each) for each, whose in zip(batch, users, strict=True) if whose == user)
        if batch:
            progress((batch[-1].offset() or 0) - begin, until - begin)
        batch.clear()

    for message in committed_records(kafka, topic, partition, begin, until):
        batch.append(message)
        if len(batch) >= _TOGETHER:
            sift()
    sift()
    return found


def _decoded(
    records: list[Record], topic: str, partition: int, user: bytes, events: EventReader, keys: KeyFormat
) -> History:
    """The interactions of one user behind the newest null value."""
    polled = decode(records, topic, {}, {}, events, keys)
    flat = polled.runs.get(partition, {}).get(user, [])
    return History(partition, user, flat[::3], flat[1::3], flat[2::3], polled.names.get(partition, {}))
