"""Model versions side by side on a log: what each would have recommended, through the contract of a version alone.

There are two modes. `stream` is that of a worker: the model sees the whole history, folded segment by segment, and
lists leave it out. `readme` is the published HSTU protocol (docs/model-spec.md, "Evaluation protocol"): the model sees
the newest 200 items, and lists leave out only those. In `readme`, a model that uses time knows when the target happens,
as the published model does. In `stream`, no model knows it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.evaluation import offline, probes, ranking_metrics, significance, user_groups
from model.evaluation.baselines import Baseline, baselines
from model.evaluation.holdout import Holdout, Rows, SplitName, cut
from model.evaluation.probes import Probes
from model.evaluation.seen import seen
from model.evaluation.significance import Estimate, Paired
from model.evaluation.user_groups import Part
from model.version.manifest import Manifest
from model.version.registry import ModelVersion
from model.version.runtime import Runtime
from model.version.unknown_items import both_sides

ModeName = Literal["stream", "readme"]

WINDOWS: dict[ModeName, int | None] = {"stream": None, "readme": 200}
"""How many of the newest items of a user each mode shows to a model and leaves out of lists; None: all."""

COVERED = 10
"""Coverage of the catalogue counts so many items of each list, the first ones."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """`users` limits the number of users, who are drawn with `seed`. `at`: where the split `time` is, as a share of the
    log.
    """

    split: SplitName = "last-out"
    at: float = 0.9
    users: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.at < 1.0:
            raise ValueError(f"at is {self.at}, must be between 0 and 1")
        if self.users is not None and self.users < 1:
            raise ValueError(f"users is {self.users}, must be at least 1")


@dataclass(frozen=True, slots=True)
class Group:
    """Some of the targets. `least` orders the groups."""

    label: str
    least: float
    targets: int
    hr_at_10: Estimate
    ndcg_at_10: Estimate


@dataclass(frozen=True, slots=True)
class Ranking:
    """How good one model or baseline is. `hr` and `ndcg` are by k.

    `covered`: how many distinct items are among the first ten of any list, of the `catalogue` items that could be.
    `against_first`: the comparison with the first model. `by_position`: by how full working memory is, for users with a
    fold.
    """

    name: str
    targets: int
    hr: dict[int, Estimate]
    ndcg: dict[int, Estimate]
    mrr: Estimate
    covered: int
    catalogue: int
    against_first: Paired | None
    by_history: list[Group]
    by_position: list[Group]
    by_folds: list[Group]


@dataclass(frozen=True, slots=True)
class Mode:
    """All rankings of one mode: the models in the order of the command, then the baselines."""

    name: ModeName
    window: int | None
    rankings: list[Ranking]


@dataclass(frozen=True, slots=True)
class Subject:
    """A model version, and how many of the targets it cannot predict or has seen.

    `outside`: targets that its catalogue does not have, which count as missed, and `outside_examples`: some of them
    beside ids of the catalogue. `saw`: targets that it was trained on;
    None if its manifest does not say until when it was trained. `uses_time`: it uses time, and in README-mode it knows
    when the target happened.
    """

    reference: str
    manifest: Manifest
    outside: int
    outside_examples: str
    saw: int | None
    uses_time: bool
    probes: Probes


@dataclass(frozen=True, slots=True)
class Asked:
    """The targets. `sha256` is over them in the order of user ids. `repeated`: targets that the user had before, which
    no list that leaves out the history can have. `new_items`: targets that are in no history.
    """

    split: str
    sha256: str
    targets: int
    users_in_log: int
    interactions: int
    items: int
    without_history: int
    repeated: int
    new_items: int
    from_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that a report shows. The first of `subjects` is the one that others are compared with."""

    log: str
    options: EvaluationOptions
    asked: Asked
    subjects: list[Subject]
    baselines: dict[str, str]
    modes: list[Mode]


def evaluate(
    log: pl.LazyFrame,
    versions: Sequence[ModelVersion],
    options: EvaluationOptions,
    *,
    log_name: str,
    progress: Callable[[int, int], None],
) -> Evaluation:
    """Rank the same targets with every model version and with the baselines. Models are loaded one at a time.

    Args:
        log: `user_id`, `item_id`, `timestamp` (ms), as `model.log.read_log` gives it.
        versions: at least one, all different.
        log_name: the name of the log in the report.
        progress: called with (done, of).

    Raises:
        EvaluationImpossible: there is no target.
        What `model.version.artifact.load` raises.
    """
    holdout = cut(log, options.split, options.at)
    if options.users is not None:
        holdout = holdout.drawn(options.users, options.seed)
    done, steps = 0, len(holdout.asked) * (len(versions) * (len(WINDOWS) + 1) + 2 * len(WINDOWS))

    def advance(users: int) -> None:
        nonlocal done
        done += users
        progress(done, steps)

    answers: dict[ModeName, list[_Answers]] = {mode: [] for mode in WINDOWS}
    subjects = []
    for version in versions:
        runtime = Runtime.load(version.uri, version.sha256)
        rows = offline.catalogue_rows(runtime, holdout.item_ids)
        for mode in WINDOWS:
            answers[mode].append(_ask_model(runtime, rows, holdout, mode, advance))
        outside = holdout.target[rows[holdout.target] == runtime.oov_row]
        histories = [rows[holdout.history(user)] for user in holdout.asked.tolist()]
        times = [holdout.history_ms(user) for user in holdout.asked.tolist()] if runtime.uses_time else None
        subjects.append(
            Subject(
                reference=runtime.reference,
                manifest=runtime.manifest,
                outside=len(outside),
                outside_examples=both_sides((holdout.item_ids[item] for item in outside.tolist()), runtime.item_ids),
                saw=seen(runtime.manifest, holdout),
                uses_time=runtime.uses_time,
                probes=probes.probe(runtime, histories, rows[holdout.target], options.seed, advance, times),
            )
        )
    simple = baselines(holdout)
    for mode in WINDOWS:
        answers[mode].extend(_ask_baseline(baseline, holdout, WINDOWS[mode], advance) for baseline in simple)
    return Evaluation(
        log=log_name.rstrip("/").rsplit("/", 1)[-1],
        options=options,
        asked=_asked(holdout),
        subjects=subjects,
        baselines={baseline.name: baseline.description for baseline in simple},
        modes=[Mode(mode, WINDOWS[mode], _compared(answers[mode], holdout, WINDOWS[mode])) for mode in WINDOWS],
    )


@dataclass(frozen=True, slots=True)
class _Answers:
    """`ranks` (N,) in the order of `holdout.asked`. `segment_length` is None for a baseline, which has no segments."""

    name: str
    ranks: Values
    covered: int
    catalogue: int
    segment_length: int | None


def _ask_model(
    runtime: Runtime, rows: Rows, holdout: Holdout, mode: ModeName, advance: Callable[[int], None]
) -> _Answers:
    V, window = runtime.manifest.n_items, WINDOWS[mode]
    ranks, shown = np.empty(len(holdout.asked)), np.zeros(V + 1, bool)
    targets = rows[holdout.target]
    for at in offline.batches(holdout.history_length, V):
        histories = [rows[holdout.history(user, window)] for user in holdout.asked[at].tolist()]
        times = [holdout.history_ms(user, window) for user in holdout.asked[at].tolist()] if runtime.uses_time else None
        query_time = holdout.target_ms[at] if runtime.uses_time and mode == "readme" else None
        # The list is the whole catalogue, so a rank is exact.
        ranked = offline.rank(runtime, offline.fold(runtime, histories, times), histories, V, times, query_time)
        ranks[at] = offline.target_ranks(ranked, targets[at])
        first = ranked.rows[:, :COVERED][np.isfinite(ranked.scores[:, :COVERED])]
        shown[first] = True
        advance(len(at))
    return _Answers(runtime.reference, ranks, int(shown.sum()), V, runtime.segment_length)


def _ask_baseline(baseline: Baseline, holdout: Holdout, window: int | None, advance: Callable[[int], None]) -> _Answers:
    ranks, shown = np.empty(len(holdout.asked)), np.zeros(len(holdout.item_ids), bool)
    for i, (user, target) in enumerate(zip(holdout.asked.tolist(), holdout.target.tolist(), strict=True)):
        listed = baseline.ask(holdout.history(user, window), target)
        ranks[i] = listed.rank
        shown[listed.first] = True
        if (i + 1) % offline.USERS == 0:
            advance(offline.USERS)
    advance(len(holdout.asked) % offline.USERS)
    return _Answers(baseline.name, ranks, int(shown.sum()), holdout.n_known, None)


def _asked(holdout: Holdout) -> Asked:
    target, ms = holdout.target, holdout.target_ms
    repeated = sum(
        bool((holdout.history(user) == item).any())
        for user, item in zip(holdout.asked.tolist(), target.tolist(), strict=True)
    )
    return Asked(
        split=holdout.split,
        sha256=holdout.target_sha256(),
        targets=len(target),
        users_in_log=len(holdout.start),
        interactions=len(holdout.items),
        items=len(holdout.item_ids),
        without_history=int((holdout.history_length == 0).sum()),
        repeated=repeated,
        new_items=int((target >= holdout.n_known).sum()),
        from_ms=int(ms.min()),
        until_ms=int(ms.max()),
    )


def _compared(answers: Sequence[_Answers], holdout: Holdout, window: int | None) -> list[Ranking]:
    first = answers[0].ranks
    rankings = [_ranking(answer, holdout, window, None if at == 0 else first) for at, answer in enumerate(answers)]
    others = [ranking.against_first for ranking in rankings if ranking.against_first is not None]
    ndcg, hits = (significance.holm([getattr(pair, name) for pair in others]) for name in ("ndcg_p", "hits_p"))
    corrected = iter(
        [replace(pair, ndcg_p_holm=a, hits_p_holm=b) for pair, a, b in zip(others, ndcg, hits, strict=True)]
    )
    return [
        ranking if ranking.against_first is None else replace(ranking, against_first=next(corrected))
        for ranking in rankings
    ]


def _ranking(answers: _Answers, holdout: Holdout, window: int | None, first: Values | None) -> Ranking:
    ranks, L = answers.ranks, answers.segment_length
    gains, hits = ranking_metrics.gains(ranks, 10), ranking_metrics.hits(ranks, 10)
    length = holdout.history_length
    seen = length if window is None else np.minimum(length, window)
    return Ranking(
        name=answers.name,
        targets=len(ranks),
        hr={k: significance.share(ranking_metrics.hits(ranks, k)) for k in ranking_metrics.CUTS},
        ndcg={k: significance.mean(ranking_metrics.gains(ranks, k)) for k in ranking_metrics.CUTS},
        mrr=significance.mean(ranking_metrics.reciprocals(ranks)),
        covered=answers.covered,
        catalogue=answers.catalogue,
        against_first=None
        if first is None
        else significance.paired(gains, ranking_metrics.gains(first, 10), hits, ranking_metrics.hits(first, 10)),
        by_history=_groups(ranks, user_groups.by_history(length)),
        by_position=[] if L is None else _groups(ranks, user_groups.by_position(seen, L)),
        by_folds=[] if L is None else _groups(ranks, user_groups.by_folds(seen // L)),
    )


def _groups(ranks: Values, parts: Sequence[Part]) -> list[Group]:
    return [
        Group(
            label=part.label,
            least=part.least,
            targets=len(part.users),
            hr_at_10=significance.share(ranking_metrics.hits(ranks[part.users], 10)),
            ndcg_at_10=significance.mean(ranking_metrics.gains(ranks[part.users], 10)),
        )
        for part in parts
    ]
