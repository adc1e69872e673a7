"""Is what live workers left behind what `rec2pm replay --as-served` makes of the same topic?"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import msgpack
import numpy as np
import polars as pl
from confluent_kafka import Message

from stream.replay.shard import LISTS
from tests.same_lists import SAME, list_difference

_BATCH: Final = 20_000
_PLACE: Final = ["partition", "offset"]


def published(messages: Iterable[Message]) -> pl.DataFrame:
    """The lists of a recommendations topic, as rows of a replay's recommendations.parquet; withdrawals left out."""
    pieces, left = [pl.DataFrame(schema=LISTS)], iter(messages)
    while batch := list(islice(left, _BATCH)):
        rows = [
            {"user_id": (message.key() or b"").decode(), **_fields(value)}
            for message in batch
            if (value := message.value()) is not None
        ]
        pieces.append(pl.DataFrame(rows, schema=LISTS))
    return pl.concat(pieces)


def _fields(value: bytes) -> dict[str, Any]:
    made: dict[str, Any] = msgpack.unpackb(value)
    return {**made, "items": [str(item) for item in made["items"]]}


def list_differences(lists: pl.DataFrame, replayed: pl.DataFrame, *, every: bool = True) -> Iterator[str]:
    """Each list that the replay made otherwise, or not at all, in the order of partitions, then of the input.

    Args:
        lists: what workers published.
        replayed: recommendations.parquet of the replay.
        every: whether workers sent a list wherever the replay makes one: with REC2PM_RECOMMEND=interaction they send
            one for each user and step.
    """
    both = lists.join(replayed, on=_PLACE, how="full", suffix=" again", coalesce=True).sort(_PLACE)
    names = [name for name in lists.columns if name not in _PLACE]
    for row in both.iter_rows(named=True):
        where = f"partition {row['partition']}, offset {row['offset']}"
        live, again = ({name: row[f"{name}{of}"] for name in names} for of in ("", " again"))
        user = live["user_id"]
        if user is None:
            if every:
                yield f"user {again['user_id']}, {where}: a list in the replay alone"
        elif again["user_id"] is None:
            yield f"user {user}, {where}: no list in the replay"
        elif user != again["user_id"]:
            yield f"user {user}, {where}: the user is {again['user_id']} again"
        elif found := list_difference(live, again):
            yield f"user {user}, {where}: {found}"


def state_differences(exported: pl.DataFrame, replayed: pl.DataFrame) -> Iterator[str]:
    """Each user whose state is not the same, with the first field that differs.

    A memory that was prepared and has folded nothing is passed over: which users have one depends on how far the
    background had come. It is a function of the rest (docs/decisions/0023).
    """
    live, made = ({row["user_id"]: row for row in table.iter_rows(named=True)} for table in (exported, replayed))
    for user in sorted(live.keys() | made.keys()):
        if user not in made or user not in live:
            yield f"user {user}: {'not in the replay' if user in live else 'in the replay alone'}"
        elif found := _state_difference(live[user], made[user]):
            yield f"user {user}, partition {live[user]['partition']}: {found}"


def _state_difference(live: Mapping[str, Any], made: Mapping[str, Any]) -> str | None:
    names = ("partition", "taken", "folds", "working_items", "working_times", "as_of", "memory_as_of", "kept_segments")
    for name in names:
        if live[name] != made[name]:
            return f"{name} is {live[name]}, and {made[name]} in the replay"
    before, after = folded_memories(live), folded_memories(made)
    if before.keys() != after.keys():
        return f"memories are of {sorted(before)}, and of {sorted(after)} in the replay"
    for key, (facts, memory) in before.items():
        again, other = after[key]
        if facts != again:
            return f"the memory of {key} has {facts}, and {again} in the replay"
        if len(memory) != len(other) or not np.allclose(memory, other, rtol=0, atol=SAME):
            return f"the memory of {key} differs by {np.abs(np.subtract(memory, other)).max():.2e}"
    return None


def folded_memories(row: Mapping[str, Any]) -> dict[tuple[int, str], tuple[tuple[int, int], list[float]]]:
    """The memories of a user's exported row that folded segments: (folds, format) → (as_of, missing segments) and the
    floats.
    """
    shown = {**row, "as_of": row["memory_as_of"]}
    return {
        (each["folds"], each["memory_format"]): ((each["as_of"], each["missing_segments"]), each["memory"])
        for each in [shown, *row["other_memories"]]
        if each["folds"] and not each["prepared"]
    }
