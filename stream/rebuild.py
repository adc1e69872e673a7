"""Memories in the memory format of the model that serves, made from what is kept of users.

A rebuilt memory is a function of the user's state alone. So it makes no difference whether a list needs it first or the
background (`stream.refold`).
"""

from collections.abc import Sequence

from state.user import Preference, Segment, User
from stream.partition import Owned
from stream.recommender import Recommender


def rebuilt(
    partitions: Owned, users: Sequence[tuple[int, bytes, User]], recommender: Recommender, keep_segments: int
) -> list[Preference]:
    """The memory of each user in the model's memory format.

    Args:
        partitions: where the kept segments are.
        users: partition, user id, and a state with a preference memory in another format.
        keep_segments: only so many of the newest segments are used, though more may be stored.

    Raises:
        ModelFailed: on some of them.
        StateCorrupted, StateFormatUnknown: a store cannot be read.
    """
    memory_format = recommender.model.memory_format
    wanted: dict[int, list[tuple[bytes, int]]] = {}
    earlier: list[Preference | None] = []
    for partition, user, state in users:
        earlier.append(before := state.earlier_of(memory_format))
        first = max(state.folds - keep_segments, 0 if before is None else before.folds)
        wanted.setdefault(partition, []).extend((user, number) for number in range(first, state.folds))
    kept: dict[tuple[int, bytes], list[Segment]] = {(partition, user): [] for partition, user, _ in users}
    for partition, asked in wanted.items():
        for (user, _), segment in zip(asked, partitions[partition].store.kept(asked), strict=True):
            if segment is not None:
                kept[partition, user].append(segment)
    return recommender.rebuild(
        [state.preference for _, _, state in users if state.preference is not None],
        earlier,
        [kept[partition, user] for partition, user, _ in users],
    )
