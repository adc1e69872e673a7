"""Every user's state and the list after each fold, from the log and the artifacts alone: no worker, no store, no Kafka,
and none of their code.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.version.padding import padded
from model.version.runtime import Runtime
from tests.as_served import folded_memories
from tests.same_lists import list_difference
from tests.verify.check import Check, none_of
from tests.verify.live import KEEP_FORMATS, KEEP_SEGMENTS, TOP_K, Lived

TOLERANCE: Final = 1e-5
"""Between a memory as the worker folded it and as it is recomputed: batches differ, and with them the order of
additions.
"""
_USERS: Final = 256

Ints = NDArray[np.int64]


class Memory(NamedTuple):
    """One preference memory of a user: of `folds` segments, but for `missing` ones that were not kept any more."""

    memory_format: str
    folds: int
    missing: int
    floats: NDArray[np.float32]


@dataclass
class Expected:
    """One user, recomputed from the log: everything that the worker should have made of them."""

    items: list[str]
    times: list[int]
    versions: list[str]
    """Which version served each interaction."""
    memories: list[Memory] = field(default_factory=list)
    """That of the newest fold, then those of formats that folded before, the newest first."""
    lists: list[dict[str, Any]] = field(default_factory=list)
    """After each fold: fields of a recommendation."""


def check(lived: Lived) -> list[Check]:
    """Compare what was exported and recommended with what the log and the artifacts give."""
    runtimes = {version.reference: Runtime.load(version.uri) for version in lived.versions}
    length = next(iter(runtimes.values())).segment_length
    expected = recompute(lived.log, runtimes)
    return [*_of_states(lived.state, expected, length), *_of_lists(lived, expected, length)]


def _of_states(state: pl.DataFrame, expected: Mapping[str, Expected], length: int) -> Iterator[Check]:
    interactions = sum(len(user.items) for user in expected.values())
    yield Check(
        "every user of the log is there, once",
        f"{len(state)} of {len(expected)}",
        sorted(state["user_id"]) == sorted(expected),
    )
    yield Check(
        "`taken` sums to the interactions",
        f"{state['taken'].sum()} of {interactions}",
        state["taken"].sum() == interactions,
    )
    rows = {row["user_id"]: row for row in state.iter_rows(named=True)}
    broken = sum(row["taken"] != row["folds"] * length + len(row["working_items"]) for row in rows.values())
    yield Check("taken = folds x segment_length + working items", f"{broken} users break it", broken == 0)
    both = sorted(rows.keys() & expected.keys())
    wrong = sum(rows[user]["working_items"] != expected[user].items[rows[user]["folds"] * length :] for user in both)
    yield Check("working items are the user's last ones, in order", f"{wrong} users differ", wrong == 0)
    others, worst = [], 0.0
    for user in both:
        stored = {key: (facts[1], floats) for key, (facts, floats) in folded_memories(rows[user]).items()}
        wanted = {(each.folds, each.memory_format): (each.missing, each.floats) for each in expected[user].memories}
        if {key: missing for key, (missing, _) in stored.items()} != {key: each for key, (each, _) in wanted.items()}:
            others.append(f"user {user}: memories are of {sorted(stored)}, expected {sorted(wanted)}")
            continue
        for key, (_, floats) in stored.items():
            worst = max(worst, float(np.abs(np.array(floats, np.float32) - wanted[key][1]).max(initial=0.0)))
    yield none_of("each user has the memories of the formats that folded, and no others", len(both), others)
    yield Check(f"preference memories agree to {TOLERANCE}", f"largest difference {worst:.2e}", worst <= TOLERANCE)


def _of_lists(lived: Lived, expected: Mapping[str, Expected], length: int) -> Iterator[Check]:
    lists = lived.lists
    doubled = len(lists) - lists.select(pl.struct("partition", "offset").n_unique()).item()
    yield Check("no list twice", f"{doubled} doubled of {len(lists)}", doubled == 0)
    due = _due(lived.log, lived.options.cadence, length)
    lacking = due.join(lists, on=["user_id", "taken"], how="anti")
    # A list for each user and step: how many interactions a step had, the log does not say.
    more = 0 if lived.options.cadence == "interaction" else len(lists) - len(due) + len(lacking)
    yield Check(
        "a list wherever one is due, and nowhere else",
        f"{len(due) - len(lacking)} of {len(due)}, {more} more",
        not len(lacking) and not more,
    )
    known = pl.col("folds") == pl.col("taken") // length
    nth = lived.log.with_columns((pl.int_range(pl.len()).over("user_id") + 1).alias("taken"))
    right = lists.filter(known).join(
        nth.select("user_id", "taken", "partition", "offset", pl.col("timestamp").alias("as_of")),
        on=["user_id", "taken", "partition", "offset", "as_of"],
        how="semi",
    )
    unequal = len(lists) - len(right)
    yield Check("lists say which interaction they follow, and how many they know", f"{unequal} are wrong", unequal == 0)
    others, far, after_folds = [], 0.0, lists.filter(pl.col("taken") == pl.col("folds") * length)
    for made in after_folds.iter_rows(named=True):
        wanted = expected[made["user_id"]].lists[made["folds"] - 1]
        if found := list_difference(made, wanted):
            others.append(f"user {made['user_id']}, partition {made['partition']}, offset {made['offset']}: {found}")
        if len(made["scores"]) == len(wanted["scores"]):
            far = max(far, float(np.abs(np.subtract(made["scores"], wanted["scores"])).max(initial=0.0)))
    yield none_of(f"lists after a fold are recomputed (scores differ by up to {far:.2e})", len(after_folds), others)


def _due(log: pl.DataFrame, cadence: str, length: int) -> pl.DataFrame:
    """user_id and taken of each list that must be there."""
    nth = log.select("user_id", (pl.int_range(pl.len()).over("user_id") + 1).alias("taken"))
    if cadence == "interaction":
        return nth.group_by("user_id").agg(pl.col("taken").max())
    return nth.filter(pl.col("taken") % (length if cadence == "fold" else int(cadence)) == 0)


def recompute(log: pl.DataFrame, runtimes: Mapping[str, Runtime]) -> dict[str, Expected]:
    """Every user from the log alone.

    Args:
        log: user_id, item_id, timestamp and version, in the order of time.
        runtimes: the versions by their references, of one segment length.
    """
    models = {reference: _Model(runtime) for reference, runtime in runtimes.items()}
    length = next(iter(runtimes.values())).segment_length
    of_users = log.group_by("user_id", maintain_order=True).agg(
        pl.col("item_id").cast(pl.String), "timestamp", "version"
    )
    expected: dict[str, Expected] = {}
    for chunk in _batches(of_users.iter_rows(), _USERS):
        users = [Expected(items, times, versions) for _, items, times, versions in chunk]
        for turn in range(max(len(user.items) // length for user in users)):
            now: defaultdict[str, list[Expected]] = defaultdict(list)
            for user in users:
                if len(user.items) // length > turn:
                    now[user.versions[(turn + 1) * length - 1]].append(user)
            for reference, folding in now.items():
                models[reference].fold(folding, turn)
        expected |= {str(row[0]): user for row, user in zip(chunk, users, strict=True)}
    return expected


class _Model:
    """A version that folds and recommends."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._length = runtime.segment_length
        self._rows = {str(item): row for row, item in enumerate(runtime.item_ids, start=1)}

    def fold(self, users: Sequence[Expected], turn: int) -> None:
        """Fold the segment with this number of each user, and make the list after it."""
        read = self._read(users, turn)
        folded, hidden = self._folded(users, read, turn)
        for user, memory in zip(users, folded, strict=True):
            others = [each for each in user.memories if each.memory_format != memory.memory_format]
            user.memories = [memory, *others[:KEEP_FORMATS]]
        oov = self._runtime.oov_row
        kept = slice(max(0, turn + 1 - KEEP_SEGMENTS) * self._length, (turn + 1) * self._length)
        excluded = [self._rows_of(user.items[kept]) for user in users]
        ranked = self._runtime.rank(hidden, TOP_K, padded([rows[rows != oov] for rows in excluded]))
        for user, rows, scores in zip(users, ranked.rows, ranked.scores, strict=True):
            user.lists.append(
                {
                    "items": [str(self._runtime.item_ids[row - 1]) for row in rows],
                    "scores": scores.tolist(),
                    "as_of": user.times[kept.stop - 1],
                    "taken": kept.stop,
                    "folds": turn + 1,
                    "model": self._runtime.reference,
                    "source": "memory",
                }
            )

    def _read(self, users: Sequence[Expected], folds: int) -> list[Memory]:
        """The users' memories as this version finds them: in its own format, with the segments as far as they are
        kept.
        """
        mine, made = self._runtime.memory_format, []
        none = Memory(mine, 0, 0, np.zeros(self._runtime.state_floats, np.float32))
        for user in users:
            own = next((each for each in user.memories if each.memory_format == mine), none)
            oldest = max(own.folds, folds - KEEP_SEGMENTS)
            made.append(own._replace(folds=oldest, missing=own.missing + oldest - own.folds))
        for number in range(max(0, folds - KEEP_SEGMENTS), folds):
            lacking = [at for at, memory in enumerate(made) if memory.folds == number]
            if lacking:
                folded, _ = self._folded([users[at] for at in lacking], [made[at] for at in lacking], number)
                for at, memory in zip(lacking, folded, strict=True):
                    made[at] = memory
        return made

    def _folded(
        self, users: Sequence[Expected], read: Sequence[Memory], number: int
    ) -> tuple[list[Memory], NDArray[np.float32]]:
        """The memories with one more segment, and the hidden states after it."""
        here = slice(number * self._length, (number + 1) * self._length)
        when = np.array([user.times[here] for user in users], np.int64) if self._runtime.uses_time else None
        rows = np.stack([self._rows_of(user.items[here]) for user in users])
        folded = self._runtime.fold(np.stack([memory.floats for memory in read]), rows, when)
        made = [
            memory._replace(folds=memory.folds + 1, floats=floats)
            for memory, floats in zip(read, folded.memory, strict=True)
        ]
        return made, folded.hidden

    def _rows_of(self, items: Sequence[str]) -> Ints:
        return np.array([self._rows.get(item, self._runtime.oov_row) for item in items], np.int64)


def _batches(rows: Iterator[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    while batch := list(islice(rows, size)):
        yield batch
