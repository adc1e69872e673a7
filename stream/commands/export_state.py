"""Users' states, read from the changelog while workers run: `rec2pm state export` and `rec2pm user show`."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl

from state.codec import FOLDED, MARK, named_item, read_folded, read_mark, read_name, read_user, user_of, user_prefix
from state.store import Store, StoreMemory
from state.user import Preference, unpacked
from stream.commands.output import counted, json_line, moment
from stream.kafka.read_topic import committed_records, partitions

_BATCH: Final = 5000
_STORE_BYTES: Final = 64 << 20

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
}


class Row(msgspec.Struct, frozen=True):
    """One user's state, as a row of `state export`."""

    user_id: str
    taken: int
    folds: int
    working_items: list[str]
    working_times: list[int]
    memory: list[float]
    memory_format: str
    as_of: int
    partition: int
    missing_segments: int


class UserState(msgspec.Struct, frozen=True):
    """What `rec2pm user show` shows: the row, the folded segments that are kept, oldest first, and memories in other
    formats.
    """

    row: Row
    kept_segments: list[list[str]]
    other_memories: list["OtherMemory"]


class OtherMemory(msgspec.Struct, frozen=True):
    """A memory that the version that serves does not read."""

    memory_format: str
    folds: int
    missing_segments: int


def export(kafka: Mapping[str, Any], topic: str, out: Path, progress: Callable[[int, int], None]) -> int:
    """Write every user's state to a Parquet file; returns how many.

    Args:
        kafka: options for the connection, `bootstrap.servers` among them.
        topic: the changelog.
        out: written at the end, whole.
        progress: called with (partitions done, partitions).
    """
    numbers = partitions(kafka, topic)
    users = 0
    with tempfile.TemporaryDirectory(prefix="rec2pm-export-") as scratch:
        folder = Path(scratch)
        for done, number in enumerate(numbers):
            progress(done, len(numbers))
            # Through a store of its own: the newest record of each key, in key order, in bounded memory.
            store = Store(folder / "store" / str(number), StoreMemory(_STORE_BYTES))
            batch: list[tuple[bytes, bytes | None]] = []
            for message in committed_records(kafka, topic, number):
                batch.append((message.key() or b"", message.value()))
                if len(batch) >= _BATCH:
                    store.write(batch, None)
                    batch = []
            store.write(batch, None)
            frame = pl.DataFrame(
                [msgspec.structs.astuple(row) for row in rows(store.records(), number)],
                schema=dict(SCHEMA),
                orient="row",
            )
            frame.write_parquet(folder / f"{number:05d}.parquet")
            users += len(frame)
            store.close()
        progress(len(numbers), len(numbers))
        partial = out.with_name(out.name + ".partial")
        out.parent.mkdir(parents=True, exist_ok=True)
        pl.scan_parquet(folder / "*.parquet").sink_parquet(partial)
        partial.replace(out)
    return users


def read_states(kafka: Mapping[str, Any], topic: str, user: str) -> list[UserState]:
    """A user's state in each partition that has one: one partition, unless producers disagree about where users go."""
    found = []
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
        records = sorted(kept.items())
        names = _names(iter(records))
        for row in rows(iter(records), number):
            segments = [read_folded(value)[0] for key, value in records if user_of(key)[1][:1] == FOLDED]
            texts = [[names.get(item, str(item)) for item in segment] for segment in segments]
            found.append(UserState(row, texts, _others(row, records)))
    return found


def state_lines(state: UserState) -> list[str]:
    """A user's state for people."""
    row = state.row
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
        *(
            f"  folded segment {row.folds - 1 - age:<9} {' '.join(segment)}"
            for age, segment in enumerate(reversed(state.kept_segments))
        ),
        *(
            f"  other memory             {counted(other.folds, 'segment')} folded, {other.memory_format}"
            for other in state.other_memories
        ),
    ]


def state_json(state: UserState) -> list[str]:
    """A user's state for programs."""
    others = [msgspec.structs.asdict(other) for other in state.other_memories]
    return [
        json_line({**msgspec.structs.asdict(state.row), "kept_segments": state.kept_segments, "other_memories": others})
    ]


def rows(records: Iterator[tuple[bytes, bytes]], partition: int) -> Iterator[Row]:
    """The users of one partition, from its records in key order: the partition's own records first.

    A memory is shown in the format of the version that served last, if the user has it.
    """
    names: dict[int, str] = {}
    served = ""
    for user, group in groupby(records, lambda record: user_of(record[0])[0]):
        if not user:
            own = list(group)
            names = _names(iter(own))
            served = next((read_mark(value).memory_format for key, value in reversed(own) if key.startswith(MARK)), "")
            continue
        parts = ((user_of(key)[1], value) for key, value in group)
        state = read_user((rest, value) for rest, value in parts if rest[:1] != FOLDED)
        preference = state.memory_of(served) or state.preference
        times = unpacked(state.times).tolist()
        if preference is None and not times:
            continue
        yield Row(
            user_id=user.decode(),
            taken=state.working + (0 if preference is None else preference.folds * preference.segment_length),
            folds=state.folds,
            working_items=[names.get(item, str(item)) for item in unpacked(state.items)],
            working_times=times,
            memory=[] if preference is None else np.frombuffer(preference.memory, np.float32).tolist(),
            memory_format="" if preference is None else preference.memory_format,
            as_of=times[-1] if times else preference.as_of if preference else 0,
            partition=partition,
            missing_segments=0 if preference is None else preference.missing,
        )


def _others(row: Row, records: list[tuple[bytes, bytes]]) -> list[OtherMemory]:
    """The memories of a user in other formats than the one that is shown, from the records of their partition."""
    parts = [(user_of(key), value) for key, value in records]
    state = read_user((rest, value) for (user, rest), value in parts if user and rest[:1] != FOLDED)
    memories: list[Preference | None] = [state.preference, state.prepared, *state.earlier]
    return [
        OtherMemory(memory.memory_format, memory.folds, memory.missing)
        for memory in memories
        if memory is not None and (memory.memory_format, memory.folds) != (row.memory_format, row.folds)
    ]


def _names(records: Iterator[tuple[bytes, bytes]]) -> dict[int, str]:
    found = {}
    for key, value in records:
        user, rest = user_of(key)
        if not user and (item := named_item(rest)) is not None:
            found[item] = read_name(value)
    return found
