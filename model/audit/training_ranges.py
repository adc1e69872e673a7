"""What a model has seen of a log in its training."""

from typing import TYPE_CHECKING, Final

import polars as pl

from model.audit.finding import Finding, Verdict, share
from model.audit.timeline import Timeline
from model.audit.wording import moment, percent
from model.log import Log
from model.version.manifest import LAST_OUT

if TYPE_CHECKING:
    from model.version.manifest import Manifest

_BORDER: Final = 0.01
"""Of the interactions from the split on. Training and targets may share the millisecond at the split."""


def finding(log: Log, manifest: "Manifest", when: Timeline, begin_ms: int) -> Finding:
    """How much of a log is in the training range of a version, and of what it predicts: interactions from the split on,
    and from `begin_ms` on.
    """
    training, reference = manifest.training, manifest.reference
    if training is None:
        words = "It was not trained on a log, so it has seen nothing of this one."
        return Finding("training range", "OK", f"{reference}: none", words, 0.0, reference)
    ms = pl.col("timestamp")
    seen = ms.is_between(training.from_ms, training.until_ms)
    target = ms >= max(when.split_ms, begin_ms)
    counts = log.interactions.select(
        seen.sum().alias("seen"), target.sum().alias("targets"), (seen & target).sum().alias("both")
    )
    rows, targets, after = counts.collect(engine="streaming").row(0)
    value = share(after, targets)
    figure = f"{reference}: {percent(rows, when.rows)} of the log, {percent(after, targets)} of its targets"
    if not rows:
        words = f"It was trained on other times ({training.log})."
        return Finding("training range", "OK", figure, words, value, reference)
    words = f"It was trained on {training.log} until {moment(training.until_ms)}."
    if after:
        words += " Its figures on what it has seen are too good: predict what comes later, or train it until the split."
        if training.split.startswith(LAST_OUT):
            words += " Its training left out the last two interactions of each user, but saw what others did meanwhile."
    else:
        words += " What is predicted comes after that; figures on what comes before are marked."
    verdict: Verdict = "FAIL" if value > _BORDER else "attention" if after else "OK"
    return Finding("training range", verdict, figure, words, value, reference)
