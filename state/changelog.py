"""What a step writes about a user: only what changed, as records for RocksDB and for the changelog alike."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from state.codec import (
    aside_value,
    earlier_key,
    folded_key,
    folded_value,
    preference_key,
    preference_value,
    prepared_key,
    working_key,
    working_value,
)
from state.user import Preference, Remembered, User, unpacked

Change: TypeAlias = tuple[bytes, bytes | None]
"""A key and its new value; None deletes it."""


class Keep(NamedTuple):
    """How much is kept beside what serves."""

    segments: int
    """Folded segments of a user, the newest ones."""
    formats: int = 1
    """Memories of a user in formats that folded segments before, the newest ones."""
    times: bool = False
    """Whether kept segments have their times."""


def take(
    changes: list[Change],
    user_id: bytes,
    before: User,
    items: Sequence[int],
    times: Sequence[int],
    remembered: Remembered,
    memory: Preference | None,
    keep: Keep,
) -> User:
    """Return the state after a step, and append the records that store it to `changes`.

    A step that completes no segment writes one working record. For that, `taken` is all that must be known of the state
    before. A caller who needs nothing else writes `working_key` and `working_value` itself.

    Args:
        changes: the changes of the whole step in this partition. One list, because a step has thousands of users.
        user_id: 1 to 255 bytes of UTF-8.
        before: the state that was read.
        items: the item keys of the step's interactions, oldest first; none leaves everything as it is.
        times: their times, epoch ms.
        remembered: what `remember` returned for them.
        memory: the memory that served after the last completed segment. If none was completed: one of `before`, or a
            rebuilt one, which is stored as prepared.
        keep: what is kept when a segment was completed.

    Raises:
        ValueError: the memory does not have one more fold for each completed segment.
    """
    if not items:
        return before
    taken = before.taken + len(items)
    if not remembered.segments:
        changes.append((working_key(user_id, taken), working_value(items, times)))
        if memory is not None and memory is not before.preference and memory is not before.prepared:
            before = prepare(changes, user_id, before, memory)
        return User(
            taken,
            remembered.items,
            remembered.times,
            (taken, *before.ends),
            before.preference,
            before.prepared,
            before.earlier,
        )

    if memory is None or memory.folds != before.folds + len(remembered.segments):
        found = None if memory is None else memory.folds
        raise ValueError(
            f"preference memory has {found} folds, expected {before.folds} and {len(remembered.segments)} more"
        )
    folds = memory.folds
    changes.append((preference_key(user_id), preference_value(memory)))
    earlier = _put_aside(changes, user_id, before, memory.memory_format, keep.formats)
    # The preference record alone makes every working record below stale. They are deleted to free the space.
    changes += [(working_key(user_id, end), None) for end in before.ends]
    # Without leftover items the record is empty. It is still written: the newest working record holds `taken`.
    rest = len(remembered.items) >> 3
    changes.append((working_key(user_id, taken), working_value(items[len(items) - rest :], times[len(items) - rest :])))
    for segment in remembered.segments[-keep.segments :] if keep.segments else ():
        when = unpacked(segment.times).tolist() if keep.times else ()
        changes.append((folded_key(user_id, segment.number), folded_value(unpacked(segment.items).tolist(), when)))
    changes += [
        (folded_key(user_id, number), None)
        for number in range(max(0, before.folds - keep.segments), min(before.folds, folds - keep.segments))
    ]
    return User(taken, remembered.items, remembered.times, (taken,), memory, None, earlier)


def prepare(changes: list[Change], user_id: bytes, before: User, memory: Preference) -> User:
    """Store a memory that was rebuilt in another format; return the state with it."""
    changes.append((prepared_key(user_id), aside_value(memory)))
    return msgspec.structs.replace(before, prepared=memory)


def _put_aside(
    changes: list[Change], user_id: bytes, before: User, memory_format: str, keep: int
) -> tuple[Preference, ...]:
    """After a fold in this format: collect what it makes pointless, and keep the memory that it replaces.

    Returns:
        The earlier memories. The one in this format is none any more: it lives on in what the fold wrote.
    """
    if before.prepared is not None:
        changes.append((prepared_key(user_id), None))
    old = before.preference
    replaced = () if old is None or old.memory_format == memory_format else (old,)
    earlier = (*replaced, *(each for each in before.earlier if each.memory_format != memory_format))[:keep]
    if keep:
        changes += [(earlier_key(user_id, each.memory_format), aside_value(each)) for each in replaced]
    changes += [(earlier_key(user_id, each.memory_format), None) for each in before.earlier if each not in earlier]
    return earlier
