"""How certain a difference is. Each value belongs to one user, and users count as independent.

The extra `evaluate` installs scipy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Values = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 9_999
"""Sign flips of a permutation test. Its smallest p is 1 / (RESAMPLES + 1)."""

BOOTSTRAPS = 2_000
BOOTSTRAP_UNITS = 10_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over users and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Paired:
    """How much better one ranking is than another on the same targets.

    `ndcg_at_10`: the mean difference of the users' NDCG@10, with the t interval. `ndcg_p`: the two-sided paired t-test.
    `only_first`, `only_second`: how many users only one of the two hits among its first 10. `hits_p`: McNemar's exact
    test of these two numbers. `ndcg_p_holm` and `hits_p_holm` are corrected for how many rankings were compared (Holm
    1979).
    """

    ndcg_at_10: Estimate
    ndcg_p: float
    only_first: int
    only_second: int
    hits_p: float
    ndcg_p_holm: float
    hits_p_holm: float


def share(successes: Values) -> Estimate:
    """Mean of zeros and ones, with Wilson's score interval."""
    n, found = len(successes), int(successes.sum())
    interval = stats.binomtest(found, n).proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return Estimate(found / n, float(interval.low), float(interval.high))


def mean(values: Values, least: float = 0.0) -> Estimate:
    """Mean with the t interval, cut at `least`, the smallest mean that can be. The interval of a single value is that
    value.
    """
    n, centre = len(values), float(values.mean())
    if n < 2:
        return Estimate(centre, centre, centre)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Estimate(centre, max(least, centre - half), centre + half)


def paired(gains: Values, first_gains: Values, hits: Values, first_hits: Values) -> Paired:
    """How much better a ranking is than the first one; positive means better. All (N,), user by user. The corrected
    values are still the plain ones.
    """
    difference = gains - first_gains
    ndcg_p = t_test(difference)
    only_second, only_first = int(((hits > 0) & (first_hits == 0)).sum()), int(((hits == 0) & (first_hits > 0)).sum())
    hits_p = sign_test(only_first, only_second)
    return Paired(mean(difference, least=-1.0), ndcg_p, only_first, only_second, hits_p, ndcg_p, hits_p)


def t_test(differences: Values) -> float:
    """Two-sided p of the paired t-test: how likely such a mean difference is if there is none. A single one says
    nothing.
    """
    # A t-test divides by zero, or by rounding errors, if all differences are equal. They are then all zero, p = 1, or
    # certain, p = 0.
    if len(differences) < 2 or np.ptp(differences) <= 1e-10 * np.abs(differences).max():
        return float(len(differences) < 2 or not differences.any())
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p of the exact sign test, ties left out: how likely such a split is if both sides are as likely. On
    hits it is McNemar's exact test.
    """
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def bootstrap(sums: Values, weights: Values, seed: int) -> list[Estimate]:
    """For each column of `sums` (U, M): the sum over users, divided by the sum of `weights` (U,), with the percentile
    interval when users are drawn again with replacement.

    More than `BOOTSTRAP_UNITS` users are put into so many groups at random, and groups are drawn; a mean over many
    users varies as much either way.
    """
    rng = np.random.default_rng(seed)
    U, M = sums.shape
    if U > BOOTSTRAP_UNITS:
        group = rng.permutation(U) % BOOTSTRAP_UNITS
        grouped = [np.bincount(group, column, BOOTSTRAP_UNITS).astype(np.float64) for column in (*sums.T, weights)]
        sums, weights, U = np.stack(grouped[:M], axis=1), grouped[M], BOOTSTRAP_UNITS
    drawn = np.empty((BOOTSTRAPS, M))
    for at in range(0, BOOTSTRAPS, 100):
        times = np.stack([np.bincount(rng.integers(0, U, U), minlength=U) for _ in range(100)]).astype(np.float64)
        drawn[at : at + 100] = (times @ sums) / np.maximum(times @ weights, np.finfo(float).tiny)[:, None]
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    value = sums.sum(axis=0) / weights.sum()
    return [Estimate(float(v), float(a), float(b)) for v, a, b in zip(value, low, high, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values, corrected for their number: with at most 5 % chance, any of them is below 0.05 by accident."""
    m = len(p_values)
    corrected, highest = [0.0] * m, 0.0
    for turn, at in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (m - turn) * p_values[at]))
        corrected[at] = highest
    return corrected


def worse_by_chance(differences: Values, seed: int) -> float:
    """One-sided p of a permutation test: how often the mean is at least as high if the sign of every user is random."""
    if not differences.any():
        return 1.0
    # The sign of a zero changes nothing, so one zero stands for all of them. scipy needs two observations.
    observed = np.append(differences[differences != 0], 0.0)
    test = stats.permutation_test(
        (observed,),
        lambda values, axis: values.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, 2_000_000 // len(observed)),
        alternative="greater",
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)
