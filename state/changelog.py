"""What a step writes about a user: only what changed, as records for RocksDB and for the changelog alike."""

from collections.abc import Sequence
from typing import TypeAlias

from state.codec import folded_key, folded_value, preference_key, preference_value, user_prefix, working_key, working_value
from state.user import Preference, Remembered, User, unpacked

Change: TypeAlias = tuple[bytes, bytes | None]
"""A key and its new value; None deletes it."""


def take(
    changes: list[Change],
    user_id: bytes,
    before: User,
    items: Sequence[int],
    times: Sequence[int],
    remembered: Remembered,
    preference: Preference | None,
    keep: int,
) -> User:
    """The state after a step; the records that say so are appended to `changes`.

    Args:
        changes: those of the partition's whole step: one list, where thousands of users are taken at a time.
        user_id: 1 to 255 bytes of UTF-8.
        before: the state that was read.
        items: the item keys that the step took, oldest first; none leaves everything as it is.
        times: their times, epoch ms.
        remembered: what `remember` made of them.
        preference: the preference memory after the last of the remembered segments; as before when there is none.
        keep: how many folded segments to keep, the newest ones.
    """
    prefix = user_prefix(user_id)
    if not remembered.segments:
        if not items:
            return before
        at = len(before.items) >> 3
        changes.append((working_key(prefix, at), working_value(before.folds, items, times)))
        return User(before.folds, remembered.items, remembered.times, (*before.positions, at), preference)

    if preference is None or preference.folds != before.folds + len(remembered.segments):
        found = None if preference is None else preference.folds
        raise ValueError(f"preference memory has {found} folds, expected {before.folds} and {len(remembered.segments)} more")
    folds = preference.folds
    changes.append((preference_key(prefix), preference_value(preference)))
    # The preference record alone makes every working record below stale; they are deleted to give the space back.
    rest = len(remembered.items) >> 3
    changes += [(working_key(prefix, position), None) for position in set(before.positions) if position or not rest]
    if rest:
        changes.append((working_key(prefix, 0), working_value(folds, items[-rest:], times[-rest:])))
    for segment in remembered.segments[-keep:] if keep else ():
        changes.append((folded_key(prefix, segment.number), folded_value(unpacked(segment.items).tolist())))
    changes += [(folded_key(prefix, number), None) for number in range(max(0, before.folds - keep), min(before.folds, folds - keep))]
    return User(folds, remembered.items, remembered.times, (0,) if rest else (), preference)
