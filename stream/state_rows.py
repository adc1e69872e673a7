"""One user's whole state as a row of Parquet: what `state export` and the replay write, and what `state import` reads.

A row has everything that is stored about a user, so that records and rows can be made from each other: `rows` reads the
records of a partition, `changes` writes those of a row. What a whole file has in common (`Facts`) is in its metadata.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl

from state.codec import (
    FOLDED,
    MARK,
    ONE_FORMAT,
    aside_value,
    earlier_key,
    folded_key,
    folded_value,
    named_item,
    preference_key,
    preference_value,
    prepared_key,
    read_folded,
    read_mark,
    read_name,
    read_one_format,
    read_user,
    user_of,
    working_key,
    working_value,
)
from state.interaction import NAMED, item_key
from state.user import Preference, User, unpacked

_PIECE: Final = 5000
"""Rows that are in memory at a time. A user may have 100 KB."""
_KEY: Final = "rec2pm"

_SEGMENT: Final = pl.Struct({"number": pl.Int64(), "items": pl.List(pl.String()), "times": pl.List(pl.Int64())})
_MEMORY: Final = pl.Struct(
    {
        "memory_format": pl.String(),
        "folds": pl.Int64(),
        "as_of": pl.Int64(),
        "memory": pl.List(pl.Float32()),
        "missing_segments": pl.Int64(),
        "prepared": pl.Boolean(),
    }
)
SCHEMA: Final[Mapping[str, Any]] = {
    "user_id": pl.String(),
    "taken": pl.Int64(),
    "folds": pl.Int64(),
    "working_items": pl.List(pl.String()),
    "working_times": pl.List(pl.Int64()),
    "memory": pl.List(pl.Float32()),
    "memory_format": pl.String(),
    "as_of": pl.Int64(),
    "partition": pl.Int32(),
    "missing_segments": pl.Int64(),
    "memory_as_of": pl.Int64(),
    "prepared": pl.Boolean(),
    "kept_segments": pl.List(_SEGMENT),
    "other_memories": pl.List(_MEMORY),
}


class KeptSegment(msgspec.Struct, frozen=True):
    """A folded segment whose items are kept."""

    number: int
    """How many segments of the user come before it."""
    items: list[str]
    times: list[int]
    """Epoch ms; empty if they are not kept."""


class OtherMemory(msgspec.Struct, frozen=True):
    """A memory beside the one that the row shows."""

    memory_format: str
    folds: int
    as_of: int
    memory: list[float]
    missing_segments: int
    prepared: bool


class Row(msgspec.Struct, frozen=True):
    """One user's state. Item ids are text: an integer and its decimal text are the same id."""

    user_id: str
    taken: int
    """Interactions remembered: `folds` segments, and the working items."""
    folds: int
    working_items: list[str]
    """Oldest first."""
    working_times: list[int]
    """Epoch ms."""
    memory: list[float]
    """Empty before the first fold."""
    memory_format: str
    as_of: int
    """Time of the newest interaction, epoch ms."""
    partition: int
    missing_segments: int = 0
    """Segments that the memory lacks, because they were not kept when it was rebuilt."""
    memory_as_of: int = 0
    """Time of the newest interaction in the memory, epoch ms; 0 without one."""
    prepared: bool = False
    """The memory was rebuilt in its format, and has folded nothing yet."""
    kept_segments: list[KeptSegment] = []
    """Oldest first."""
    other_memories: list[OtherMemory] = []
    """In formats that the version that serves does not read."""


class Facts(msgspec.Struct, frozen=True):
    """What all rows of a file have in common."""

    segment_length: int
    """Interactions in each folded segment; 0 if there are no states."""
    topic: str = ""
    """The interactions topic that the states were made from; empty for a log that came from no topic."""
    topic_id: str = ""
    """Kafka's id of it; empty if the broker has none."""
    positions: dict[str, int] = {}
    """Partition of the topic → the offset of the next record that the states lack."""


def rows(records: Iterator[tuple[bytes, bytes]], partition: int) -> Iterator[Row]:
    """The users of one partition, from its records in key order: the partition's own records first.

    A memory is shown in the format of the version that served last, if the user has it.
    """
    names: dict[int, str] = {}
    served = ""
    for user, group in groupby(records, lambda record: user_of(record[0])[0]):
        if user:
            parts = [(user_of(key)[1], value) for key, value in group]
            if (row := _row(user.decode(), parts, names, served, partition)) is not None:
                yield row
        else:
            own = list(group)
            names = names_of(own)
            served = _served(own)


def names_of(records: Iterable[tuple[bytes, bytes]]) -> dict[int, str]:
    """The text of each hashed item key, from the records of a partition."""
    found = {}
    for key, value in records:
        user, rest = user_of(key)
        if not user and (item := named_item(rest)) is not None:
            found[item] = read_name(value)
    return found


def _served(own: list[tuple[bytes, bytes]]) -> str:
    """The memory format of the version that served last, from a partition's own records."""
    marks = [value for key, value in own if key.startswith(MARK)]
    if marks:
        return read_mark(marks[-1]).memory_format
    return next((read_one_format(value) for key, value in own if key == ONE_FORMAT), "")


def _row(
    user: str, parts: list[tuple[bytes, bytes]], names: Mapping[int, str], served: str, partition: int
) -> Row | None:
    """None if nothing is remembered."""
    state = read_user((rest, value) for rest, value in parts if rest[:1] != FOLDED)
    shown = state.memory_of(served) or state.preference
    times = unpacked(state.times).tolist()
    if shown is None and not times:
        return None
    return Row(
        user_id=user,
        taken=state.taken,
        folds=state.folds,
        working_items=_texts(unpacked(state.items), names),
        working_times=times,
        memory=[] if shown is None else _floats(shown),
        memory_format="" if shown is None else shown.memory_format,
        as_of=times[-1] if times else shown.as_of if shown else 0,
        partition=partition,
        missing_segments=0 if shown is None else shown.missing,
        memory_as_of=0 if shown is None else shown.as_of,
        prepared=shown is not None and shown is state.prepared,
        kept_segments=[_kept(rest, value, names) for rest, value in parts if rest[:1] == FOLDED],
        other_memories=_others(state, shown),
    )


def _kept(rest: bytes, value: bytes, names: Mapping[int, str]) -> KeptSegment:
    items, times = read_folded(value)
    return KeptSegment(int.from_bytes(rest[1:], "big"), _texts(items, names), times)


def _others(state: User, shown: Preference | None) -> list[OtherMemory]:
    stored: list[Preference | None] = [state.preference, state.prepared, *state.earlier]
    return [
        OtherMemory(
            memory.memory_format,
            memory.folds,
            memory.as_of,
            _floats(memory),
            memory.missing,
            memory is state.prepared,
        )
        for memory in stored
        if memory is not None and memory is not shown
    ]


def _texts(items: Iterable[int], names: Mapping[int, str]) -> list[str]:
    return [names.get(item, str(item)) for item in items]


def _floats(memory: Preference) -> list[float]:
    floats: list[float] = np.frombuffer(memory.memory, np.float32).tolist()
    return floats


def changes(row: Row, segment_length: int, names: dict[int, str]) -> list[tuple[bytes, bytes]]:
    """The records that store a row: what `rows` reads as this row again.

    Args:
        names: the texts of hashed items are added to it.
    """
    user = row.user_id.encode()
    working = _keys(row.working_items, names)
    made = [(working_key(user, row.taken), working_value(working, row.working_times))]
    shown = OtherMemory(
        row.memory_format, row.folds, row.memory_as_of, row.memory, row.missing_segments, prepared=row.prepared
    )
    for each in [*([shown] if row.folds else []), *row.other_memories]:
        memory = Preference(
            each.memory_format,
            segment_length,
            each.folds,
            each.as_of,
            np.array(each.memory, np.float32).tobytes(),
            each.missing_segments,
        )
        if each.prepared:
            made.append((prepared_key(user), aside_value(memory)))
        elif each.folds == row.folds:
            made.append((preference_key(user), preference_value(memory)))
        else:
            made.append((earlier_key(user, each.memory_format), aside_value(memory)))
    made += [
        (folded_key(user, segment.number), folded_value(_keys(segment.items, names), segment.times))
        for segment in row.kept_segments
    ]
    return made


def _keys(items: Iterable[str], names: dict[int, str]) -> list[int]:
    keys = []
    for text in items:
        keys.append(key := item_key(text))
        if key >= NAMED:
            names[key] = text
    return keys


def write_parts(found: Iterable[Row], folder: Path, name: str) -> int:
    """Write rows as files NAME-00000.parquet and so on, flat in memory; returns how many rows there were."""
    left = iter(found)
    count = 0
    for number in range(1 << 62):
        piece = list(islice(left, _PIECE))
        if not piece:
            break
        frame = pl.DataFrame([msgspec.to_builtins(row) for row in piece], schema=dict(SCHEMA), orient="row")
        frame.write_parquet(folder / f"{name}-{number:05d}.parquet")
        count += len(piece)
    return count


def join_parts(folder: Path, out: Path, facts: Facts) -> None:
    """Join what `write_parts` wrote into one file, in the order of names. The file appears when it is whole."""
    parts = sorted(folder.glob("*.parquet"))
    states = pl.scan_parquet(parts) if parts else pl.LazyFrame(schema=dict(SCHEMA))
    beside = out.with_name(f".{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    # A reader of a piece decodes whole row groups.
    states.sink_parquet(beside, row_group_size=_PIECE, metadata={_KEY: msgspec.json.encode(facts).decode()})
    beside.replace(out)


def read_facts(path: Path) -> Facts | None:
    """What a file says of all its rows; None if it does not say it."""
    try:
        return msgspec.json.decode(pl.read_parquet_metadata(path)[_KEY], type=Facts)
    except (KeyError, msgspec.DecodeError):
        return None


def read_rows(path: Path) -> Iterator[list[Row]]:
    """The rows of a file, piece by piece.

    Raises:
        msgspec.ValidationError: a row is not of this kind.
    """
    states, start = pl.scan_parquet(path).select(list(SCHEMA)), 0
    while len(piece := states.slice(start, _PIECE).collect()):
        yield msgspec.convert(piece.to_dicts(), list[Row])
        start += len(piece)
