"""The check `quality`: the champion and the candidate on the newest part of a log, the next item of the same users.

The rule (`model.evaluation.drop`): the drop in NDCG@10 that the data still allow, with a certainty of 95 %, must not be
above a limit. So a candidate passes when the log shows that it is not much worse, and not when too few users say
nothing.
"""

from typing import Final

import polars as pl

from model.errors import EvaluationImpossible
from model.evaluation.drop import Drop, drop, gains, least_targets, newest_part
from model.version.runtime import Runtime
from stream.promotion.record import Check

NAME: Final = "quality"
MAX_NDCG_DROP: Final = 0.01


def quality(log: pl.LazyFrame, champion: Runtime, candidate: Runtime, limit: float) -> Check:
    """Fails if the log does not show that the candidate's NDCG@10 is at most `limit` lower than the champion's."""
    try:
        part = newest_part(log, (champion.manifest, candidate.manifest), least_targets(limit))
    except EvaluationImpossible as error:
        return Check(name=NAME, result="failed", figure=f"nothing can be compared: {error}")
    found = drop(gains(champion, part.holdout), gains(candidate, part.holdout))
    said = judged(found, limit)
    return Check(name=NAME, result=said.result, figure=f"{said.figure} ({found.targets:,} targets: {part.words})")


def judged(found: Drop, limit: float) -> Check:
    """What a measured drop says."""
    mean = f"{abs(found.mean):.4f} {'lower' if found.mean > 0 else 'higher'}"
    figure = f"NDCG@10 {found.second:.4f}, the champion's {found.first:.4f}: {mean}"
    least = least_targets(limit)
    if found.targets < least:
        return _failed(
            f"{figure}. {found.targets:,} targets are too few to show that it drops by at most {limit:g}: at least {least:,} are "
            "needed"
        )
    allowed = "with 95 % certainty at " + (
        f"most {found.most:.4f} lower" if found.most > 0 else f"least {abs(found.most):.4f} higher"
    )
    if found.most <= limit:
        return Check(name=NAME, result="passed", figure=f"{figure}, {allowed}; {limit:g} may be lost")
    if found.least > limit:
        return _failed(
            f"{figure}, with 95 % certainty at least {found.least:.4f} lower: it is worse than the {limit:g} that may be lost"
        )
    needs = found.needs(limit)
    more = "more of them would not show it" if needs is None else f"about {needs:,} would show it"
    return _failed(f"{figure}, {allowed}: these targets do not show that it is at most {limit:g}; {more}")


def _failed(figure: str) -> Check:
    return Check(name=NAME, result="failed", figure=figure)
