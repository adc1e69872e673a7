"""The sections of a report that say what preference memories are worth."""

from collections.abc import Iterable

from model.evaluation import markdown, probes
from model.evaluation.compare import Evaluation
from model.evaluation.probes import Drift
from model.evaluation.user_groups import FEW


def shuffled(evaluation: Evaluation, pictures: dict[str, str]) -> Iterable[str]:
    rows = []
    for subject in evaluation.subjects:
        if (told := subject.probes.shuffled) is not None:
            numbers = (markdown.interval(e) for e in (told.hr_own, told.hr_others, told.ndcg_own, told.ndcg_others))
            rows.append(
                [
                    subject.reference,
                    f"{told.users:,}",
                    *numbers,
                    f"{told.lost.value:+.4f} [{told.lost.low:+.4f}, {told.lost.high:+.4f}]",
                    markdown.p_value(told.p),
                ]
            )
    if rows:
        yield "### Somebody else's memory"
        yield (
            f"Every user with a memory and a working memory is ranked with their own memory, and {probes.SHUFFLES} times with another user's. "
            "p: a one-sided permutation test over users, signs of the differences drawn at random."
        )
        yield pictures["shuffle.png"]
        yield markdown.table(["", "users", "HR@10 own", "another's", "NDCG@10 own", "another's", "lost", "p"], rows)


def one_time(evaluation: Evaluation) -> Iterable[str]:
    yield "### One time or fold by fold"
    yield "The same users ranked from one `update` call over all their full segments, and from folding them one by one, as the worker does."
    rows, groups = [], []
    for subject in evaluation.subjects:
        told = subject.probes.one_time
        if told is None:
            refused = subject.probes.one_time_refused
            why = (
                "too few users have two folds"
                if refused is None
                else f"takes no more than a segment in a call ({refused})"
            )
            rows.append([subject.reference, why, "", "", "", ""])
            continue
        pair = told.difference
        rows.append(
            [
                subject.reference,
                f"{told.users:,}",
                markdown.interval(told.ndcg_iterative),
                markdown.interval(told.ndcg_one_time),
                f"{pair.ndcg_at_10.value:+.4f} [{pair.ndcg_at_10.low:+.4f}, {pair.ndcg_at_10.high:+.4f}]",
                markdown.p_value(pair.ndcg_p),
            ]
        )
        groups += [
            [
                subject.reference,
                group.label,
                f"{group.users:,}{'*' if group.users < FEW else ''}",
                markdown.interval(group.iterative),
                markdown.interval(group.one_time),
            ]
            for group in told.by_folds
        ]
    yield markdown.table(
        ["", "users", "NDCG@10 fold by fold", "one time", "one time less fold by fold", "p (t-test)"], rows
    )
    if groups:
        yield f"By number of folds; * fewer than {FEW} users:"
        yield markdown.table(["", "folds", "users", "NDCG@10 fold by fold", "one time"], groups)


def drift(evaluation: Evaluation, pictures: dict[str, str]) -> Iterable[str]:
    told = [(subject, subject.probes.drift) for subject in evaluation.subjects if subject.probes.drift]
    if not told:
        return
    yield "### Drift"
    yield "Mean squared difference of memories folded one by one and made in one call, over the variance of the latter across users. 0: the same; 1: as far apart as users' memories are from their mean. Not comparable: the two do not fill the same floats."
    if "drift.png" in pictures:
        yield pictures["drift.png"]
    numbers = sorted({drift.folds for _, drifts in told for drift in drifts})
    rows = []
    for subject, drifts in told:
        by_folds = {drift.folds: drift for drift in drifts}
        trained = subject.probes.trained_segments
        rows.append(
            [
                subject.reference,
                "not said" if trained is None else str(trained),
                *(_drifted(by_folds.get(number)) for number in numbers),
            ]
        )
    yield markdown.table(
        ["", "segments in a training window", *(f"{n} folds" if n > 1 else "1 fold" for n in numbers)], rows
    )


def _drifted(drift: Drift | None) -> str:
    if drift is None:
        return ""
    return "not comparable" if drift.ratio is None else f"{drift.ratio:.3g} (n = {drift.users})"
