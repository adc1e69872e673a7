"""What is remembered about one user, read from a copy of the changelog: the answer of `GET /users/{user}`."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from state.interaction import NAMED
from state.store import Store
from state.user import NEW_USER, Preference, unpacked

MOST_SEGMENTS: Final = 20
"""Kept segments that an answer shows, the newest ones. A worker may keep a thousand."""


class Segment(msgspec.Struct, frozen=True):
    """A folded segment whose items are kept."""

    number: int
    """How many segments of the user come before it."""
    items: list[str]
    """Oldest first."""
    times: list[int]
    """Epoch ms; empty if they are not kept."""


class Memory(msgspec.Struct, frozen=True):
    """What stands for the folded segments; not its floats."""

    format: str
    floats: int
    bytes: int
    as_of: int
    """Time of the newest interaction in it, epoch ms."""
    missing_segments: int
    """Segments that it lacks, because they were not kept when it was rebuilt."""


class Remembered(msgspec.Struct, frozen=True):
    """A user's state."""

    user: str
    partition: int
    taken: int
    """Interactions remembered: `folds` segments, and the working items."""
    folds: int
    segment_length: int
    """The working memory is folded when it has so many items."""
    as_of: int
    """Time of the newest interaction, epoch ms."""
    working_items: list[str]
    """Oldest first."""
    working_times: list[int]
    """Epoch ms."""
    memory: Memory | None
    """In the format of the version that serves; None before the first fold."""
    segments: list[Segment]
    """The newest first; at most MOST_SEGMENTS."""
    serves: str | None
    """The version that serves the user's partition, NAME@VERSION."""


def remembered(stores: Mapping[int, Store], user: str) -> Remembered | None:
    """A user's state; None if nothing is remembered.

    Reads a few records by their keys, however many users a store has. A user is in one partition. If producers disagree
    about it, the one that remembers most is shown.

    Raises:
        StateError: a store cannot be read.
    """
    name = user.encode()
    taken = {number: store.taken([name])[0] for number, store in stores.items()}
    number = max(taken, key=lambda each: taken[each], default=None)
    return None if number is None or not taken[number] else _of(stores[number], number, user)


def _of(store: Store, number: int, user: str) -> Remembered | None:
    name = user.encode()
    (state,) = store.read([name])
    if state == NEW_USER:
        return None
    newest = range(state.folds - 1, max(-1, state.folds - 1 - MOST_SEGMENTS), -1)
    kept = [each for each in store.kept([(name, segment) for segment in newest]) if each is not None]
    working, times = unpacked(state.items).tolist(), unpacked(state.times).tolist()
    items = [*working, *(item for each in kept for item in unpacked(each.items))]
    names = store.names(sorted({item for item in items if item >= NAMED}))
    mark = store.last_mark()
    served = "" if mark is None else mark[1].memory_format
    memory = state.memory_of(served) or state.preference
    return Remembered(
        user=user,
        partition=number,
        taken=state.taken,
        folds=state.folds,
        segment_length=store.segment_length() or 0,
        as_of=times[-1] if times else memory.as_of if memory else 0,
        working_items=_texts(working, names),
        working_times=times,
        memory=None if memory is None else _memory(memory),
        segments=[
            Segment(each.number, _texts(unpacked(each.items), names), unpacked(each.times).tolist()) for each in kept
        ],
        serves=None if mark is None else mark[1].version,
    )


def _memory(memory: Preference) -> Memory:
    return Memory(memory.memory_format, len(memory.memory) // 4, len(memory.memory), memory.as_of, memory.missing)


def _texts(items: Any, names: Mapping[int, str]) -> list[str]:
    return [names.get(item, str(item)) for item in items]
