"""What a step writes about a user: only what changed, as records for RocksDB and for the changelog alike."""

from collections.abc import Sequence
from typing import TypeAlias

from state.codec import folded_key, folded_value, preference_key, preference_value, working_key, working_value
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
        preference: the preference memory after the last completed segment; as before if no segment was completed.
        keep: how many folded segments to keep, the newest ones.

    Raises:
        ValueError: the preference memory does not have one more fold for each completed segment.
    """
    if not items:
        return before
    taken = before.taken + len(items)
    if not remembered.segments:
        changes.append((working_key(user_id, taken), working_value(items, times)))
        return User(taken, remembered.items, remembered.times, (taken, *before.ends), preference)

    if preference is None or preference.folds != before.folds + len(remembered.segments):
        found = None if preference is None else preference.folds
        raise ValueError(
            f"preference memory has {found} folds, expected {before.folds} and {len(remembered.segments)} more"
        )
    folds = preference.folds
    changes.append((preference_key(user_id), preference_value(preference)))
    # The preference record alone makes every working record below stale. They are deleted to free the space.
    changes += [(working_key(user_id, end), None) for end in before.ends]
    # Without leftover items the record is empty. It is still written: the newest working record holds `taken`.
    rest = len(remembered.items) >> 3
    changes.append((working_key(user_id, taken), working_value(items[len(items) - rest :], times[len(items) - rest :])))
    for segment in remembered.segments[-keep:] if keep else ():
        changes.append((folded_key(user_id, segment.number), folded_value(unpacked(segment.items).tolist())))
    changes += [
        (folded_key(user_id, number), None)
        for number in range(max(0, before.folds - keep), min(before.folds, folds - keep))
    ]
    return User(taken, remembered.items, remembered.times, (taken,), preference)
