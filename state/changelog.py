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
    """The state after a step; the records that say so are appended to `changes`.

    A step that completes no segment writes one working record. That needs nothing of the state but `taken`: a caller
    who has no other use for the rest writes `working_key` and `working_value` itself.

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
    # The preference record alone makes every working record below stale; they are deleted to give the space back.
    changes += [(working_key(user_id, end), None) for end in before.ends]
    # Without a rest it is empty: the newest working record says how far the user is, whatever is left over below it.
    rest = len(remembered.items) >> 3
    changes.append((working_key(user_id, taken), working_value(items[len(items) - rest :], times[len(items) - rest :])))
    for segment in remembered.segments[-keep:] if keep else ():
        changes.append((folded_key(user_id, segment.number), folded_value(unpacked(segment.items).tolist())))
    changes += [
        (folded_key(user_id, number), None)
        for number in range(max(0, before.folds - keep), min(before.folds, folds - keep))
    ]
    return User(taken, remembered.items, remembered.times, (taken,), preference)
