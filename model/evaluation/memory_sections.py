"""The sections of a report about what preference memories are worth."""

from collections.abc import Iterable

from model.evaluation import markdown, probes
from model.evaluation.compare import Evaluation
from model.evaluation.probes import Drift
from model.evaluation.user_groups import FEW


def shuffled(evaluation: Evaluation, pictures: dict[str, str]) -> Iterable[str]:
    rows = []
    for subject in evaluation.subjects:
        if (found := subject.probes.shuffled) is not None:
            numbers = (markdown.interval(e) for e in (found.hr_own, found.hr_others, found.ndcg_own, found.ndcg_others))
            rows.append(
                [
                    subject.reference,
                    f"{found.users:,}",
                    *numbers,
                    f"{found.lost.value:+.4f} [{found.lost.low:+.4f}, {found.lost.high:+.4f}]",
                    markdown.p_value(found.p),
                ]
            )
    if rows:
        yield "### Another user's memory"
        yield (
            f"Every user with a memory and a working memory is ranked with their own memory, and {probes.SHUFFLES} times with that of another "
            "user. p: a one-sided permutation test over users, with random signs of the differences."
        )
        yield pictures["shuffle.png"]
        yield markdown.table(["", "users", "HR@10 own", "another's", "NDCG@10 own", "another's", "lost", "p"], rows)


def one_time(evaluation: Evaluation) -> Iterable[str]:
    yield "### In one call or fold by fold"
    yield "The same users, ranked from one `update` call over all their full segments, and from folds one by one, as in a worker."
    rows, groups = [], []
    for subject in evaluation.subjects:
        found = subject.probes.one_time
        if found is None:
            refused = subject.probes.one_time_refused
            why = (
                "too few users have two folds"
                if refused is None
                else f"accepts no more than a segment in a call ({refused})"
            )
            rows.append([subject.reference, why, "", "", "", ""])
            continue
        pair = found.difference
        rows.append(
            [
                subject.reference,
                f"{found.users:,}",
                markdown.interval(found.ndcg_iterative),
                markdown.interval(found.ndcg_one_time),
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
            for group in found.by_folds
        ]
    yield markdown.table(
        ["", "users", "NDCG@10 fold by fold", "one call", "one call minus fold by fold", "p (t-test)"], rows
    )
    if groups:
        yield f"By number of folds (*: fewer than {FEW} users):"
        yield markdown.table(["", "folds", "users", "NDCG@10 fold by fold", "one call"], groups)


def drift(evaluation: Evaluation, pictures: dict[str, str]) -> Iterable[str]:
    drifting = [(subject, subject.probes.drift) for subject in evaluation.subjects if subject.probes.drift]
    if not drifting:
        return
    yield "### Drift"
    yield (
        "How far the memory of folds one by one is from the memory of one call: their mean squared difference, divided by the variance of "
        "the latter between users. 0: they are equal. 1: they differ as much as memories of users differ from their mean. Not comparable: the "
        "two do not fill the same floats."
    )
    if "drift.png" in pictures:
        yield pictures["drift.png"]
    numbers = sorted({drift.folds for _, drifts in drifting for drift in drifts})
    rows = []
    for subject, drifts in drifting:
        by_folds = {drift.folds: drift for drift in drifts}
        trained = subject.probes.trained_segments
        rows.append(
            [
                subject.reference,
                "not known" if trained is None else str(trained),
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
