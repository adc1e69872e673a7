"""The interactions that are predicted, those from the split on, and what a model can know of them."""

from typing import Final

import numpy as np

from model.audit.finding import Finding, graded, share
from model.audit.items import ByItem
from model.audit.timeline import Timeline
from model.audit.users import ByUser, gap_ms
from model.audit.wording import DAY_MS, duration, moment, percent

_COLD_USERS: Final = 0.5
_COLD_ITEMS: Final = (0.1, 0.9)
_FEW: Final = 100
"""Fewer targets fail nothing."""
_LONG_MS: Final = 30 * DAY_MS


def cold_users(when: Timeline, users: ByUser) -> Finding:
    """Targets of users without a history before the split."""
    value = share(users.cold, when.after)
    verdict = graded(value, _COLD_USERS)
    words = "The user has no interaction before the split."
    if verdict != "OK":
        words += " A worker gives such users lists from their first interaction on; a model is scored mostly on these."
    return Finding("cold users", verdict, f"{percent(users.cold, when.after)} of the targets", words, value)


def cold_items(when: Timeline, items: ByItem) -> Finding:
    """Targets whose item nobody had before the split."""
    value = share(items.cold, when.after)
    verdict = graded(value, *_COLD_ITEMS if when.after >= _FEW else _COLD_ITEMS[:1])
    words = "Nobody had the item before the split, so no model that was trained until then can list it."
    if verdict == "FAIL":
        words += " Nearly nothing can be predicted: are item ids made anew for each row?"
    elif verdict == "attention":
        words += " No figure can be higher than the share of the others."
    return Finding("cold items", verdict, f"{percent(items.cold, when.after)} of the targets", words, value)


def gap(users: ByUser) -> Finding:
    """How long before a target its user acted last."""
    counted = int(users.gaps.sum())
    if not counted:
        words = "No user has an interaction from the split on and one before it."
        return Finding("gap to target", "attention", "no target has an interaction before it", words)
    until = np.cumsum(users.gaps)
    median, late = (gap_ms(int(np.searchsorted(until, counted * part))) for part in (0.5, 0.9))
    figure = f"median {duration(median)}; 90% within {duration(late)}"
    words = "From a user's newest interaction to the target."
    verdict = graded(median, _LONG_MS)
    if verdict != "OK":
        words += " Most users come back after weeks: what a model knows of them is old when it is asked."
    return Finding("gap to target", verdict, figure, words, median)


def future(when: Timeline, users: ByUser) -> Finding:
    """Targets that are earlier than what a model is given of other users."""
    figure = f"0% by time; {percent(users.leaking, users.last_out)} if each user's last interaction is the target"
    words = (
        f"Targets earlier than inputs of other users. Split by time, from {moment(when.split_ms)} on, there are none. "
        "A protocol that predicts the last interaction of each user, whenever it was, has these: models "
        "then know the future of others."
    )
    return Finding("future targets", "OK", figure, words, share(users.leaking, users.last_out))
