"""What a preference memory is worth: whether memories differ between users, whether a user's own memory helps more than
that of another user, and what folding segment by segment loses against one call over everything.

Users are folded as in a stream. Only those with a full segment count. A memory is what `update` returns, whatever it
holds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from model.errors import ModelFailed
from model.evaluation import offline, ranking_metrics, significance, user_groups
from model.evaluation.offline import UserStates
from model.evaluation.significance import Estimate, Paired
from model.version.runtime import Floats, Ranked, Rows, Runtime

MEMORY_BYTES = 256 << 20
"""Of memories held at a time. It limits how many users are probed."""

SHUFFLES = 3
"""Rounds in which every user gets the memory of another user."""

ONE_TIME_USERS = 400
DRIFT_USERS = 100
FEWEST_DRIFT_USERS = 10
"""One call over a whole history costs the square of its length, so only so many users are computed in this way."""

LEAST_VARIANCE_SHARE = 0.005
"""With less, memories count as collapsed. The limit is a choice: useful memories may differ by only 1 %, because what
they have in common costs nothing. Memories that have learned nothing differ by some hundredths of a percent."""

SIGNIFICANT = 0.05

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shuffled:
    """Users ranked with their own memory, and with those of `shuffles` other users in turn. Working memory and excluded
    items stay their own.

    `lost`: how much better NDCG@10 is with the own memory. `p`: a one-sided permutation test over users with random
    signs.
    """

    users: int
    shuffles: int
    hr_own: Estimate
    hr_others: Estimate
    ndcg_own: Estimate
    ndcg_others: Estimate
    lost: Estimate
    p: float


@dataclass(frozen=True, slots=True)
class FoldGroup:
    """NDCG@10 of users with about equally many folds, iterative and one-time."""

    label: str
    users: int
    iterative: Estimate
    one_time: Estimate


@dataclass(frozen=True, slots=True)
class OneTime:
    """Users with two folds or more, ranked from the memory that was folded segment by segment (iterative), and from one
    call over all full segments (one-time).

    `difference` is one-time minus iterative.
    """

    users: int
    hr_iterative: Estimate
    hr_one_time: Estimate
    ndcg_iterative: Estimate
    ndcg_one_time: Estimate
    difference: Paired
    by_folds: list[FoldGroup]


@dataclass(frozen=True, slots=True)
class Drift:
    """Mean squared difference of iterative and one-time memories after so many folds, divided by the variance of the
    one-time memories between users.

    `ratio` is None if the two do not fill the same floats: for a memory that keeps something of each fold, one call is
    one fold.
    """

    folds: int
    users: int
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Probes:
    """What was found.

    `variance_share`: the share of the mean square of memories that is variance between users with the same number of
    folds; None without two such users. `shuffled` is None with fewer than two users to shuffle. `one_time` is None if
    no user has two folds, or if the model accepts no more than a segment in a call (`one_time_refused` is its answer).
    `trained_segments`: the segments of a training window, if the manifest says so.
    """

    users: int
    variance_share: float | None
    shuffled: Shuffled | None
    one_time: OneTime | None
    one_time_refused: str | None
    drift: list[Drift]
    trained_segments: int | None


def probe(
    runtime: Runtime,
    histories: Sequence[Rows],
    targets: Rows,
    seed: int,
    advance: Callable[[int], None],
    times: Sequence[Rows] | None = None,
) -> Probes:
    """Probe a model.

    Args:
        histories: item rows, oldest first, of every user with a target.
        targets: (N,) item rows.
        advance: called with how many more users are done; in all, as many as there are histories.
        times: epoch ms of the items of the histories, for a model that uses time.
    """
    L = runtime.segment_length
    rng = np.random.default_rng(seed)
    folds = np.array([len(history) // L for history in histories], np.int64)
    able = rng.permutation(np.flatnonzero(folds > 0))[: max(1, MEMORY_BYTES // max(1, 4 * runtime.state_floats))]
    able = able[np.argsort(folds[able], kind="stable")]
    advance(len(histories) - len(able))
    memory = np.zeros((len(able), runtime.state_floats), np.float32)
    hidden: list[Floats] = []
    for at in range(0, len(able), offline.USERS):
        part = able[at : at + offline.USERS]
        states = offline.fold(runtime, _of(histories, part), _of(times, part))
        memory[at : at + len(part)] = states.memory
        hidden.append(states.hidden)
        advance(len(part))
    chosen, chosen_times, chosen_targets, chosen_folds = (
        _of(histories, able),
        _of(times, able),
        targets[able],
        folds[able],
    )
    refused = _refused(runtime) if (chosen_folds > 1).any() else None
    several = rng.permutation(np.flatnonzero(chosen_folds > 1))[:ONE_TIME_USERS]
    one_time = None
    if len(several) > 1 and refused is None:
        iterative = UserStates(memory[several], np.concatenate(hidden)[several])
        one_time = _one_time(
            runtime, iterative, _of(chosen, several), chosen_targets[several], _of(chosen_times, several)
        )
    return Probes(
        users=len(able),
        variance_share=variance_share(memory, chosen_folds),
        shuffled=_shuffled(runtime, memory, chosen, chosen_times, chosen_targets, rng, seed),
        one_time=one_time,
        one_time_refused=refused,
        drift=[] if refused else _drift(runtime, chosen, chosen_times, rng.permutation(len(chosen))),
        trained_segments=_trained_segments(runtime),
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """One check of one model. `passed` is None if there were no users to check it with."""

    check: str
    passed: bool | None
    why: str


def verdicts(probes: Probes) -> list[Verdict]:
    """Whether memories differ between users, and whether a user's own memory helps more than that of another user."""
    share, shuffled = probes.variance_share, probes.shuffled
    too_few = f"{probes.users} users have a memory to compare, and at least two are needed"
    apart, own = (
        Verdict("memories differ between users", None, too_few),
        Verdict("a user's own memory helps", None, too_few),
    )
    if share is not None:
        passed = share >= LEAST_VARIANCE_SHARE
        apart = Verdict(
            apart.check,
            passed,
            f"{share:.2%} of their mean square is variance between users; at least {LEAST_VARIANCE_SHARE:.1%} is needed",
        )
    if shuffled is not None:
        passed = shuffled.lost.value > 0 and shuffled.p < SIGNIFICANT
        why = f"with another user's memory, {shuffled.lost.value:.4f} of {shuffled.ndcg_own.value:.4f} NDCG@10 is lost (p = {shuffled.p:.2g}, {shuffled.users} users)"
        own = Verdict(own.check, passed, why)
    return [apart, own]


@overload
def _of(histories: Sequence[Rows], users: NDArray[np.intp]) -> list[Rows]: ...
@overload
def _of(histories: Sequence[Rows] | None, users: NDArray[np.intp]) -> list[Rows] | None: ...
def _of(histories: Sequence[Rows] | None, users: NDArray[np.intp]) -> list[Rows] | None:
    """The histories of some users. None stays None: times of a model that uses none."""
    return None if histories is None else [histories[i] for i in users.tolist()]


def _gains(
    runtime: Runtime, states: UserStates, histories: Sequence[Rows], targets: Rows, times: Sequence[Rows] | None
) -> tuple[Values, Values]:
    """NDCG@10 and HR@10 of each user."""
    ranks = np.concatenate(
        [
            offline.target_ranks(
                _ranked(runtime, states, histories, times, slice(at, at + offline.USERS)),
                targets[at : at + offline.USERS],
            )
            for at in range(0, len(histories), offline.USERS)
        ]
    )
    return ranking_metrics.gains(ranks, 10), ranking_metrics.hits(ranks, 10)


def _ranked(
    runtime: Runtime, states: UserStates, histories: Sequence[Rows], times: Sequence[Rows] | None, part: slice
) -> Ranked:
    theirs = UserStates(states.memory[part], states.hidden[part])
    return offline.rank(runtime, theirs, histories[part], 10, None if times is None else times[part])


def variance_share(memory: Floats, folds: Rows) -> float | None:
    """As in `Probes`. Groups have equal numbers of folds, so a memory that only counts folds does not tell users
    apart.
    """
    between = total = 0.0
    for number in np.unique(folds):
        group = memory[folds == number]
        n = len(group)
        if n > 1:
            # Not (group - mean)**2, which would make two more copies of up to MEMORY_BYTES, each twice as wide.
            squares, mean = (
                float(np.einsum("us,us->", group, group, dtype=np.float64)),
                group.mean(axis=0, dtype=np.float64),
            )
            between += max(0.0, squares - n * float(mean @ mean)) * n / (n - 1)
            total += squares
    return min(1.0, between / total) if total else None


def _shuffled(
    runtime: Runtime,
    memory: Floats,
    histories: Sequence[Rows],
    times: Sequence[Rows] | None,
    targets: Rows,
    rng: np.random.Generator,
    seed: int,
) -> Shuffled | None:
    """Users with an empty working memory are left out: their lists come from the hidden state of the fold, not from
    memory.
    """
    at = np.flatnonzero([len(history) % runtime.segment_length > 0 for history in histories])
    if len(at) < 2 or not runtime.state_floats:
        return None
    histories, times, targets, memory = _of(histories, at), _of(times, at), targets[at], memory[at]
    nothing = np.zeros((len(at), 0), np.float32)
    ndcg_own, hr_own = _gains(runtime, UserStates(memory, nothing), histories, targets, times)
    lost, hr_others = np.zeros(len(at)), np.zeros(len(at))
    for _ in range(SHUFFLES):
        # In a circle in random order, every user takes the memory of the next one, so no user gets their own.
        circle = rng.permutation(len(at))
        other = np.empty(len(at), np.int64)
        other[circle] = np.roll(circle, 1)
        ndcg, hr = _gains(runtime, UserStates(memory[other], nothing), histories, targets, times)
        # Differences are summed instead of subtracting means, so that users for whom nothing changes stay exactly zero.
        lost += ndcg_own - ndcg
        hr_others += hr
    lost /= SHUFFLES
    return Shuffled(
        users=len(at),
        shuffles=SHUFFLES,
        hr_own=significance.share(hr_own),
        hr_others=significance.mean(hr_others / SHUFFLES),
        ndcg_own=significance.mean(ndcg_own),
        ndcg_others=significance.mean(ndcg_own - lost),
        lost=significance.mean(lost, least=-1.0),
        p=significance.worse_by_chance(lost, seed),
    )


def _refused(runtime: Runtime) -> str | None:
    """The error of a model that is given more than a segment in one call; None if it accepts them."""
    two = np.ones((1, 2 * runtime.segment_length), np.int64)
    try:
        runtime.fold(np.zeros((1, runtime.state_floats), np.float32), two)
    except ModelFailed as error:
        return str(error)
    return None


def _one_time(
    runtime: Runtime, iterative: UserStates, histories: Sequence[Rows], targets: Rows, times: Sequence[Rows] | None
) -> OneTime:
    ndcg, hr = _gains(runtime, iterative, histories, targets, times)
    ndcg_one, hr_one = _gains(runtime, offline.fold_at_once(runtime, histories, times), histories, targets, times)
    folds = np.array([len(history) // runtime.segment_length for history in histories], np.int64)
    return OneTime(
        users=len(histories),
        hr_iterative=significance.share(hr),
        hr_one_time=significance.share(hr_one),
        ndcg_iterative=significance.mean(ndcg),
        ndcg_one_time=significance.mean(ndcg_one),
        difference=significance.paired(ndcg_one, ndcg, hr_one, hr),
        by_folds=[
            FoldGroup(
                part.label,
                len(part.users),
                significance.mean(ndcg[part.users]),
                significance.mean(ndcg_one[part.users]),
            )
            for part in user_groups.by_folds(folds)
        ],
    )


def _drift(
    runtime: Runtime, histories: Sequence[Rows], times: Sequence[Rows] | None, order: NDArray[np.intp]
) -> list[Drift]:
    """Drift for numbers of folds that grow by about a half, as long as there are users who have so many. The first
    users in `order` are taken.
    """
    L = runtime.segment_length
    drifts: list[Drift] = []
    number = 1
    while runtime.state_floats:
        able = np.array([i for i in order.tolist() if len(histories[i]) >= number * L][:DRIFT_USERS], np.intp)
        if len(able) < FEWEST_DRIFT_USERS:
            break
        begun = [history[: number * L] for history in _of(histories, able)]
        when = None if times is None else [each[: number * L] for each in _of(times, able)]
        iterative = offline.fold(runtime, begun, when).memory.astype(np.float64)
        one_time = offline.fold_at_once(runtime, begun, when).memory.astype(np.float64)
        comparable = bool((iterative.any(axis=0) == one_time.any(axis=0)).all())
        variance = float(one_time.var(axis=0, ddof=1).mean())
        if variance > 0:
            ratio = float(((iterative - one_time) ** 2).mean()) / variance
            drifts.append(Drift(number, len(able), ratio if comparable else None))
        number = max(number + 1, round(number * 1.5))
    return drifts


def _trained_segments(runtime: Runtime) -> int | None:
    for part in ("network", "training", "options"):
        table = runtime.manifest.config.get(part)
        if isinstance(table, dict) and isinstance(table.get("segments"), int):
            return int(table["segments"])
    return None
