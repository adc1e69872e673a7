"""Whether a list that a replay made is the one that a worker published."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

SAME: Final = 1e-5
"""Scores that differ by less are the same: another batch adds in another order."""
FACTS: Final = ("taken", "folds", "model", "source", "as_of")
"""What a list says of itself beside its items and scores."""


def list_difference(published: Mapping[str, Any], made: Mapping[str, Any]) -> str | None:
    """The first difference between two lists of one interaction, in words; None if they are the same.

    Items whose scores are the same may stand in another order. At the end of a list, such an item may be another one.

    Args:
        published, made: fields of a recommendation.
    """
    for name in FACTS:
        if published[name] != made[name]:
            return f"{name} was {published[name]}, and is {made[name]} again"
    before, after = ([str(item) for item in each["items"]] for each in (published, made))
    if len(before) != len(after):
        return f"the list had {len(before)} items, and has {len(after)} again"
    for place, (was, now) in enumerate(zip(published["scores"], made["scores"], strict=True), start=1):
        if not abs(was - now) <= SAME:
            return f"score {place} was {was:.6f}, and is {now:.6f} again"
    # Of the last group, some items may have found no place: the scores alone are compared.
    for start, end in pairwise(_ties(published["scores"])[:-1]):
        if set(before[start:end]) != set(after[start:end]):
            place = next(at for at in range(start, end) if before[at] not in after[start:end])
            return f"item {place + 1} was {before[place]}, and is {after[place]} again"
    return None


def _ties(scores: Sequence[float]) -> list[int]:
    """Where each group of items with the same score begins, and the end."""
    return [0, *(at for at in range(1, len(scores)) if scores[at - 1] - scores[at] > SAME), len(scores)]
