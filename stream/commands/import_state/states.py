"""The file of an import: whether its rows can be states, and what they come to."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import polars as pl

from model.ids import checked
from state.codec import MAX_TAKEN
from stream.errors import ImportUnfit
from stream.state_rows import SCHEMA, Facts, Row, changes, read_facts, read_rows


@dataclass(slots=True)
class States:
    """What a file holds for an application."""

    facts: Facts
    sha256: str
    users: dict[int, int] = field(default_factory=dict)
    """Partition of the application → users."""
    formats: dict[int, dict[str, int]] = field(default_factory=dict)
    """Partition of the application → memory format → users."""
    interactions: int = 0
    size: int = 0
    """Bytes of keys and values that are written for them, names of items excepted."""

    def one_format(self, partition: int) -> str | None:
        """The memory format in which every user of a partition has a memory; None if there are several, or none."""
        found = self.formats.get(partition, {})
        return next(iter(found)) if len(found) == 1 else None


def opened(path: Path) -> Facts:
    """What a file says of all its rows.

    Raises:
        ImportUnfit: it is no file of states.
    """
    try:
        schema = dict(pl.read_parquet_schema(path))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ImportUnfit(f"{path} cannot be read as Parquet: {error}") from error
    wrong = [name for name, dtype in SCHEMA.items() if schema.get(name) != dtype]
    facts = read_facts(path)
    if wrong or facts is None:
        what = (
            f"its column {wrong[0]} is {schema.get(wrong[0], 'missing')}, expected {SCHEMA[wrong[0]]}"
            if wrong
            else "its metadata does not say so"
        )
        raise ImportUnfit(f"{path} is no file of states, as `rec2pm state export` and a replay write them: {what}")
    if facts.segment_length < 1:
        raise ImportUnfit(f"{path} has no states")
    return facts


def checked_states(path: Path, partition_of: Callable[[Row], int], progress: Callable[[int, int], None]) -> States:
    """Look at every row of a file.

    Args:
        partition_of: the partition of the application that a user belongs to. May raise ImportUnfit.
        progress: called with (rows done, rows).

    Raises:
        ImportUnfit: it is no file of states, or a row cannot be a state.
    """
    facts = opened(path)
    found = States(facts, _sha256(path))
    twice = pl.scan_parquet(path).group_by("user_id").len().filter(pl.col("len") > 1).head(1).collect()
    if len(twice):
        raise ImportUnfit(
            f"{path} has user {twice['user_id'][0]!r} {twice['len'][0]} times, in several partitions: producers disagreed about "
            "where the user goes, and no partition has the whole state"
        )
    count = pl.scan_parquet(path).select(pl.len()).collect().item()
    for done, row in enumerate(_rows(path), start=1):
        if (what := _wrong(row, facts.segment_length)) is not None:
            raise ImportUnfit(f"{path}: the row of user {row.user_id!r} is no state: {what}")
        number = partition_of(row)
        found.users[number] = found.users.get(number, 0) + 1
        found.interactions += row.taken
        if row.folds:
            formats = found.formats.setdefault(number, {})
            formats[row.memory_format] = formats.get(row.memory_format, 0) + 1
        found.size += sum(len(key) + len(value) for key, value in changes(row, facts.segment_length, {}))
        progress(done, count)
    return found


def _rows(path: Path) -> Iterator[Row]:
    try:
        for piece in read_rows(path):
            yield from piece
    except msgspec.ValidationError as error:
        raise ImportUnfit(f"{path} has a row that is no state: {error}") from error


def _wrong(row: Row, length: int) -> str | None:
    """What is wrong with a row; None if nothing is."""
    if (what := _wrong_id(row.user_id)) is not None:
        return f"user_id {what}"
    working = len(row.working_items)
    if working != len(row.working_times) or working >= length:
        return f"{working} working items and {len(row.working_times)} times, expected as many, and fewer than {length}"
    if row.taken != row.folds * length + working or not 0 < row.taken <= MAX_TAKEN:
        return f"taken is {row.taken}, expected {row.folds} folds of {length} and {working} working items"
    memories = [(row.memory_format, row.folds, row.prepared)] if row.memory_format else []
    memories += [(each.memory_format, each.folds, each.prepared) for each in row.other_memories]
    serving = sum(folds == row.folds and not prepared for _, folds, prepared in memories)
    if serving != bool(row.folds) or len({name for name, _, _ in memories}) != len(memories):
        return f"{serving} memories of {row.folds} folds, expected {int(bool(row.folds))}, and each format once"
    if any(not 0 < folds <= row.folds or (prepared and folds != row.folds) for _, folds, prepared in memories):
        return f"a memory of more or fewer segments than there can be with {row.folds} folds"
    for segment in row.kept_segments:
        if not 0 <= segment.number < row.folds or len(segment.items) != length:
            return f"kept segment {segment.number} of {len(segment.items)} items, expected {length} and a number below {row.folds}"
        if len(segment.times) not in (0, length):
            return f"kept segment {segment.number} has {len(segment.times)} times, expected {length} or none"
    for item in [*row.working_items, *(item for segment in row.kept_segments for item in segment.items)]:
        if (what := _wrong_id(item)) is not None:
            return f"an item id {what}"
    return None


def _wrong_id(text: str) -> str | None:
    try:
        checked(text)
    except ValueError as error:
        return str(error)
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
