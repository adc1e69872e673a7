"""What a step writes about a user: only what changed, as records for RocksDB and for the changelog alike."""

from collections.abc import Sequence
from typing import TypeAlias

from state.codec import folded_key, folded_value, preference_key, preference_value, user_prefix, working_key, working_value
from state.user import Preference, Remembered, User, unpacked

Change: TypeAlias = tuple[bytes, bytes | None]
"""A key and its new value; None deletes it."""


def take(
    user_id: bytes,
    before: User,
    items: Sequence[int],
    times: Sequence[int],
    remembered: Remembered,
    preference: Preference | None,
    keep: int,
) -> tuple[User, list[Change]]:
    """The state after a step, and the records that say so.

    Args:
        user_id: 1 to 255 bytes of UTF-8.
        before: the state that was read.
        items: the item keys that the step took, oldest first.
        times: their times, epoch ms.
        remembered: what `remember` made of them.
        preference: the preference memory after the last of the remembered segments; as before when there is none.
        keep: how many folded segments to keep, the newest ones.
    """
    prefix = user_prefix(user_id)
    if not remembered.segments:
        at = len(before.items) >> 3
        after = User(before.folds, remembered.items, remembered.times, (*before.positions, at), preference)
        return after, [(working_key(prefix, at), working_value(before.folds, items, times))]

    if preference is None or preference.folds != before.folds + len(remembered.segments):
        found = None if preference is None else preference.folds
        raise ValueError(f"preference memory has {found} folds, expected {before.folds} and {len(remembered.segments)} more")
    folds = preference.folds
    changes: list[Change] = [(preference_key(prefix), preference_value(preference))]
    # The preference record alone makes every working record below stale; they are deleted to give the space back.
    rest = len(remembered.items) >> 3
    changes += [(working_key(prefix, position), None) for position in set(before.positions) if position or not rest]
    if rest:
        changes.append((working_key(prefix, 0), working_value(folds, items[-rest:], times[-rest:])))
    for segment in remembered.segments[-keep:] if keep else ():
        changes.append((folded_key(prefix, segment.number), folded_value(unpacked(segment.items).tolist())))
    changes += [(folded_key(prefix, number), None) for number in range(max(0, before.folds - keep), min(before.folds, folds - keep))]
    return User(folds, remembered.items, remembered.times, (0,) if rest else (), preference), changes
