"""How much worse one version may be than another on the same targets: the drop in NDCG@10, and what the data allow.

A version that is to replace another has to show that it is not much worse. So what counts is not the mean drop, but the
largest drop that the targets still allow. It comes from a paired bootstrap: users are drawn again with replacement, and
95 of 100 draws have a mean drop of at most `Drop.most`.

A bootstrap of few users knows nothing of what none of them shows. A loss of the whole list for a share p of all users
is missed by n users with a chance of (1 - p)^n, which is 5 % for n = 3 / p. So `least_targets` asks for that many.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.evaluation import offline, ranking_metrics
from model.evaluation.holdout import Holdout, cut
from model.evaluation.seen import seen
from model.log import in_time_order
from model.version.manifest import LAST_OUT, Manifest
from model.version.runtime import Runtime

Values = NDArray[np.float64]

USERS: Final = 10_000
"""The most users who are asked about; of more, so many are drawn."""
NEWEST: Final = 0.1
"""The share of the log that is the newest part, where no other part was held out of both trainings."""
CERTAINTY: Final = 0.95
_RESAMPLES: Final = 5_000


@dataclass(frozen=True, slots=True)
class Drop:
    """NDCG@10 of two versions on the same targets.

    `mean` is how much lower that of the second is; `least` and `most` are the smallest and the largest drop that the
    targets allow, each with a certainty of 95 %. Negative: it is higher.
    """

    targets: int
    first: float
    second: float
    least: float
    most: float

    @property
    def mean(self) -> float:
        return self.first - self.second

    def needs(self, limit: float) -> int | None:
        """About how many targets would show that the drop is at most `limit`, if the mean stays as it is: two digits,
        rounded up. None: no number would.
        """
        if self.mean >= limit:
            return None
        needed = self.targets * ((self.most - self.mean) / (limit - self.mean)) ** 2
        digits: int = 10 ** max(0, math.floor(math.log10(max(needed, 1))) - 1)
        return max(least_targets(limit), math.ceil(needed / digits - 1e-9) * digits)


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a log that two versions are compared on. `words` says which."""

    holdout: Holdout
    words: str


def least_targets(limit: float) -> int:
    """Fewer targets cannot show that a drop is at most `limit`, even if no list differs."""
    return math.ceil(3 / limit - 1e-9)


def drop(first: Values, second: Values, seed: int = 0) -> Drop:
    """The drop from the first to the second. Both (N,): the NDCG@10 of the same users."""
    # The same draws for both directions, so that the drop of one is exactly the gain of the other.
    own, mirrored = np.sort(first - second), np.sort(second - first)
    sign = -1.0 if mirrored.tolist() < own.tolist() else 1.0
    # NDCG@10 has eleven values, so users with the same difference are drawn together.
    values, counts = np.unique(own if sign > 0 else mirrored, return_counts=True)
    n = len(first)
    means = sign * (np.random.default_rng(seed).multinomial(n, counts / n, _RESAMPLES) @ values / n)
    least, most = np.quantile(means, [1 - CERTAINTY, CERTAINTY])
    return Drop(n, float(first.mean()), float(second.mean()), float(least), float(most))


def newest_part(log: pl.LazyFrame, manifests: tuple[Manifest, Manifest], wanted: int) -> Part:
    """The newest part of a log, one that neither version was trained on where there is one.

    The first of these parts that there is: what came after both trainings, if that has as many targets as wanted; the
    last interaction of each user, if both trainings left it out; the newest tenth of the log.

    Args:
        log: `user_id`, `item_id`, `timestamp` (ms), as `model.log.read_log` gives it.

    Raises:
        EvaluationImpossible: there is no target, or no history.
    """
    trained = [manifest.training for manifest in manifests if manifest.training is not None]
    if len(trained) == len(manifests):
        times = in_time_order(log.select("user_id", "timestamp")).collect()
        until = max(training.until_ms for training in trained)
        after = times.filter(pl.col("timestamp") > until)
        if after["user_id"].n_unique() >= wanted and len(after) < len(times):
            holdout = cut(log, "time", 1 - len(after) / len(times))
            return _drawn(holdout, "all after both trainings ended")
        if all(training.split.startswith(LAST_OUT) for training in trained):
            return _drawn(cut(log, "last-out"), "the last interaction of each user, which both trainings left out")
    part = _drawn(cut(log, "time", 1 - NEWEST), f"the newest {NEWEST:.0%} of the log")
    return Part(part.holdout, f"{part.words}; {_what_was_seen(manifests, part.holdout)}")


def _drawn(holdout: Holdout, words: str) -> Part:
    """At most `USERS` of its users."""
    return Part(holdout.drawn(USERS, seed=0), words)


def _what_was_seen(manifests: tuple[Manifest, Manifest], holdout: Holdout) -> str:
    said = []
    for manifest in manifests:
        count = seen(manifest, holdout)
        if count is None:
            said.append(f"{manifest.reference} does not say what it was trained on")
        elif count:
            said.append(f"{manifest.reference} was trained on {count} of these targets, which flatters it")
    return "; ".join(said) or "neither was trained on it"


def gains(runtime: Runtime, holdout: Holdout) -> Values:
    """NDCG@10 of each user with a target, (N,), for the list that a worker would have made before it."""
    rows = offline.catalogue_rows(runtime, holdout.item_ids)
    ranks, targets = np.empty(len(holdout.asked)), rows[holdout.target]
    for at in offline.batches(holdout.history_length, 10):
        users = holdout.asked[at].tolist()
        histories = [rows[holdout.history(user)] for user in users]
        times = [holdout.history_ms(user) for user in users] if runtime.uses_time else None
        ranked = offline.rank(runtime, offline.fold(runtime, histories, times), histories, 10, times)
        ranks[at] = offline.target_ranks(ranked, targets[at])
    return ranking_metrics.gains(ranks, 10)
