"""What users do again and again: duplicates, repeats, and how long their histories are."""

from typing import Final

import numpy as np

from model.audit.finding import Finding, graded, share
from model.audit.users import ByUser
from model.audit.wording import percent

_DUPLICATES: Final = (0.001, 0.1)
_REPEATS: Final = 0.05
_ONCE: Final = 0.5
_ONE_USER: Final = 0.1


def duplicates(users: ByUser) -> Finding:
    """Rows that are there twice."""
    rows = int(users.lengths.sum())
    value = share(users.duplicates, rows)
    verdict = graded(value, *_DUPLICATES)
    words = "Rows with the same user, item and time."
    if verdict != "OK":
        words += (
            " They were written twice, or times are too coarse to tell them apart. Who predicts the last item again is right "
            "each time. Leave them out."
        )
    return Finding("duplicates", verdict, f"{percent(users.duplicates, rows)} of the interactions", words, value)


def repeats(users: ByUser) -> Finding:
    """Items that a user had before."""
    rows = int(users.lengths.sum())
    value = share(users.repeats, rows)
    figure = f"{percent(users.repeats, rows)} of the interactions; {percent(users.at_once, rows)} at once"
    words = "The user had the item before; at once: it was the item just before."
    if value >= _REPEATS:
        words += " No list that leaves out the history can have them, so REC2PM_EXCLUDE decides what a figure means."
    return Finding("repeats", graded(value, _REPEATS), figure, words, value)


def lengths(users: ByUser) -> Finding:
    """How long histories are."""
    counts, rows = users.lengths, int(users.lengths.sum())
    once, most = int((counts == 1).sum()), int(counts.max())
    figure = f"median {int(np.median(counts))}, longest {most:,} interactions; {percent(once, len(counts))} of the users have one"
    words = "Interactions of a user."
    verdict = graded(share(once, len(counts)), _ONCE)
    if verdict != "OK":
        words += " Most users have nothing to predict from: their one list is the popular items."
    if len(counts) > 1 and share(most, rows) >= _ONE_USER:
        verdict = "attention"
        words += f" One user has {percent(most, rows)} of the log: is it a program, or a name for nobody?"
    return Finding("histories", verdict, figure, words, float(np.median(counts)))
