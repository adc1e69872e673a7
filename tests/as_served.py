"""Is what live workers left behind what `rec2pm replay --as-served` makes of the same topic?"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tests.same_lists import SAME, list_difference

Published = tuple[str, Mapping[str, Any]]
"""A user id and the recommendation that they got."""


def list_differences(published: Sequence[Published], replayed: Path) -> Iterator[str]:
    """Each list that the replay made otherwise, or not at all, in the order of the input. Also each that it alone made.

    Args:
        published: by workers with a list after every interaction, or after every fold.
        replayed: recommendations.parquet of the replay.
    """
    made = {(row["partition"], row["offset"]): row for row in pl.read_parquet(replayed).iter_rows(named=True)}
    live = {(each["partition"], each["offset"]): (user, each) for user, each in published}
    for place in sorted(made.keys() | live.keys()):
        where = f"partition {place[0]}, offset {place[1]}"
        if place not in made or place not in live:
            yield f"{where}: {'no list in the replay' if place in live else 'a list in the replay alone'}"
            continue
        user, each = live[place]
        again = made[place]
        found = f"the user is {again['user_id']} again" if user != again["user_id"] else list_difference(each, again)
        if found is not None:
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
    before, after = _folded(live), _folded(made)
    if before.keys() != after.keys():
        return f"memories are of {sorted(before)}, and of {sorted(after)} in the replay"
    for key, (facts, memory) in before.items():
        again, other = after[key]
        if facts != again:
            return f"the memory of {key} has {facts}, and {again} in the replay"
        if len(memory) != len(other) or not np.allclose(memory, other, rtol=0, atol=SAME):
            return f"the memory of {key} differs by {np.abs(np.subtract(memory, other)).max()}"
    return None


def _folded(row: Mapping[str, Any]) -> dict[tuple[int, str], tuple[tuple[int, int], list[float]]]:
    """The memories that folded segments: (folds, format) → (as_of, missing segments) and the floats."""
    shown = {**row, "as_of": row["memory_as_of"]}
    return {
        (each["folds"], each["memory_format"]): ((each["as_of"], each["missing_segments"]), each["memory"])
        for each in [shown, *row["other_memories"]]
        if each["folds"] and not each["prepared"]
    }
