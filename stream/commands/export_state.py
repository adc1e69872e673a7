"""Users' states, read from the changelog while workers run: `rec2pm state export` and `rec2pm user show`."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from state.codec import user_prefix
from state.store import Store, StoreMemory
from stream.commands.output import counted, json_line, moment
from stream.kafka.read_topic import committed_records, partitions
from stream.state_rows import Facts, Row, join_parts, rows, write_parts

_BATCH: Final = 5000
_STORE_BYTES: Final = 64 << 20


def export(
    kafka: Mapping[str, Any], topic: str, interactions: str, out: Path, progress: Callable[[int, int], None]
) -> int:
    """Write every user's state to a Parquet file; returns how many.

    Args:
        kafka: options for the connection, `bootstrap.servers` among them.
        topic: the changelog.
        interactions: the topic that the states are made from.
        out: written at the end, whole.
        progress: called with (partitions done, partitions).
    """
    numbers = partitions(kafka, topic)
    users, length, input_id = 0, 0, ""
    positions: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="rec2pm-export-") as scratch:
        folder, parts = Path(scratch) / "stores", Path(scratch) / "parts"
        parts.mkdir()
        for done, number in enumerate(numbers):
            progress(done, len(numbers))
            store = _copied(kafka, topic, number, folder / str(number))
            users += write_parts(rows(store.records(), number), parts, f"{number:05d}")
            length = store.segment_length() or length
            input_id = store.input_id() or input_id
            if (position := store.position()) is not None:
                positions[str(number)] = position
            store.close()
        progress(len(numbers), len(numbers))
        join_parts(parts, out, Facts(length, interactions, input_id, positions))
    return users


def _copied(kafka: Mapping[str, Any], topic: str, number: int, folder: Path) -> Store:
    """A partition of the changelog in a store: the newest record of each key, in key order, in bounded memory."""
    store = Store(folder, StoreMemory(_STORE_BYTES))
    batch: list[tuple[bytes, bytes | None]] = []
    for message in committed_records(kafka, topic, number):
        batch.append((message.key() or b"", message.value()))
        if len(batch) >= _BATCH:
            store.write(batch, None)
            batch = []
    store.write(batch, None)
    return store


def read_states(kafka: Mapping[str, Any], topic: str, user: str) -> list[Row]:
    """A user's state in each partition that has one: one partition, unless producers disagree about where users go."""
    found: list[Row] = []
    prefix = user_prefix(user.encode())
    for number in partitions(kafka, topic):
        kept: dict[bytes, bytes] = {}
        for message in committed_records(kafka, topic, number):
            key, value = message.key() or b"", message.value()
            if not key.startswith((prefix, b"\x00")):
                continue
            if value is None:
                kept.pop(key, None)
            else:
                kept[key] = value
        found += rows(iter(sorted(kept.items())), number)
    return found


def state_lines(row: Row) -> list[str]:
    """A user's state for people."""
    working = (
        f"{counted(len(row.working_items), 'item')}: {' '.join(row.working_items)}" if row.working_items else "empty"
    )
    memory = f"{len(row.memory)} floats of {row.memory_format}" if row.folds else "none yet"
    if row.missing_segments:
        memory += f", rebuilt without {counted(row.missing_segments, 'segment')} that were not kept"
    return [
        f"user {row.user_id} (partition {row.partition})",
        f"  interactions remembered  {row.taken}, the newest at {moment(row.as_of)} UTC",
        f"  preference memory        {counted(row.folds, 'segment')} folded, {memory}",
        f"  working memory           {working}",
        *(f"  folded segment {segment.number:<9} {' '.join(segment.items)}" for segment in reversed(row.kept_segments)),
        *(
            f"  other memory             {counted(other.folds, 'segment')} folded, {other.memory_format}"
            for other in row.other_memories
        ),
    ]


def state_json(row: Row) -> list[str]:
    """A user's state for programs."""
    return [json_line(msgspec.to_builtins(row))]
