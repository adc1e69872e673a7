"""The check `known items`: how many of the newest interactions a version's catalogue knows.

An item that a version does not know is remembered, but its lists do not follow it. A catalogue that is older than the
champion's, or of another shop, shows here first.
"""

from collections.abc import Iterable
from math import sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.ids import Id
from state.interaction import item_key
from stream.promotion.newest import Newest
from stream.promotion.record import Check

NAME: Final = "known items"
LEAST_SHARE: Final = 0.5
MOST_DROP: Final = 0.02
LEAST_INTERACTIONS: Final = 100


def known_items(newest: Newest, catalogue: Iterable[Id], champions: Iterable[Id] | None) -> Check:
    """Fails if the catalogue knows less than half of the interactions, or clearly less of them than the champion's: a
    difference of more than two in a hundred that is also more than twice its standard error.

    Args:
        champions: the champion's catalogue; None if nothing is compared.
    """
    keys = np.array([item_key(item) for item in newest.items], np.int64)
    n = len(keys)
    if n < LEAST_INTERACTIONS:
        return Check(
            name=NAME,
            result="left out",
            figure=f"the newest records of {newest.topic} hold {n} interactions, {LEAST_INTERACTIONS} are needed",
        )
    known = _known(keys, catalogue)
    figure = f"{known.mean():.1%} of the newest {n:,} interactions of {newest.topic}"
    failed = known.mean() < LEAST_SHARE
    if failed:
        figure += f", at least {LEAST_SHARE:.0%} is expected"
    if champions is not None:
        before = _known(keys, champions)
        figure += f"; the champion knows {before.mean():.1%}"
        lost, gained = int((before & ~known).sum()), int((known & ~before).sum())
        if lost - gained > max(MOST_DROP * n, 2 * sqrt(lost + gained)):
            failed = True
            figure += f", and at most {100 * MOST_DROP:g} in a hundred may be lost"
    return Check(name=NAME, result="failed" if failed else "passed", figure=figure)


def _known(keys: NDArray[np.int64], catalogue: Iterable[Id]) -> NDArray[np.bool_]:
    return np.isin(keys, np.array([item_key(item) for item in catalogue], np.int64))
