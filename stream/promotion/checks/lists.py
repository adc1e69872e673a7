"""The check `lists`: how much of the champion's lists the candidate's lists have. It informs, and never fails."""

from typing import Final

import numpy as np

from model.evaluation import offline
from model.version.runtime import Runtime
from stream.promotion.newest import Newest
from stream.promotion.record import Check

NAME: Final = "lists"
USERS: Final = 500
"""The most users whose lists are compared: those who acted last in the sample."""
LENGTH: Final = 10


def lists(newest: Newest, champion: Runtime, candidate: Runtime) -> Check:
    """Compare the first ten items of both lists of each user, after the user's newest interactions alone."""
    positions: dict[bytes, list[int]] = {}
    for at, user in enumerate(newest.users):
        positions.setdefault(user, []).append(at)
    chosen = sorted(positions.values(), key=lambda each: newest.times[each[-1]])[-USERS:]
    if not chosen:
        return Check(name=NAME, result="left out", figure=f"the newest records of {newest.topic} hold no interaction")
    pairs = zip(_made(newest, chosen, champion), _made(newest, chosen, candidate), strict=True)
    same = [len(before & after) / max(1, len(before)) for before, after in pairs]
    return Check(
        name=NAME,
        result="passed",
        figure=f"{np.mean(same):.0%} of the champion's first {LENGTH} are in its lists too ({len(chosen):,} users, for information)",
    )


def _made(newest: Newest, chosen: list[list[int]], runtime: Runtime) -> list[set[str]]:
    rows = offline.catalogue_rows(runtime, newest.items)
    when = np.array(newest.times, np.int64)
    made: list[set[str]] = []
    for start in range(0, len(chosen), offline.USERS):
        part = chosen[start : start + offline.USERS]
        histories = [rows[at] for at in part]
        times = [when[at] for at in part] if runtime.uses_time else None
        ranked = offline.rank(runtime, offline.fold(runtime, histories, times), histories, LENGTH, times)
        made += [
            {str(runtime.item_ids[row - 1]) for row in best[np.isfinite(scores)].tolist()}
            for best, scores in zip(ranked.rows, ranked.scores, strict=True)
        ]
    return made
