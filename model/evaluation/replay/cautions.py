"""What a reader must know before trusting the figures of a replay."""

from collections.abc import Iterable, Sequence

from model.evaluation.replay.files import Protocol
from model.evaluation.replay.found import Caution, Counts, Finding, Ranked
from model.evaluation.user_groups import FEW

LAST_OUT = (
    "**Leaks from the future.** With `last-out`, only the last interaction of each user counts. These lie at different "
    "times, so a model that was trained for this protocol has seen what other users did after them. Compare these figures "
    "with those of papers, not with what a worker will reach: the protocol `timeline` shows that."
)


def cautions(protocol: Protocol, counts: Counts, rankings: Sequence[Ranked], audit: Sequence[Finding]) -> list[Caution]:
    return [
        *(Caution(True, words) for words in _red(protocol, counts, rankings, audit)),
        *(Caution(False, words) for words in _yellow(counts, rankings)),
    ]


def _red(protocol: Protocol, counts: Counts, rankings: Sequence[Ranked], audit: Sequence[Finding]) -> Iterable[str]:
    if protocol == "last-out":
        yield LAST_OUT
    if counts.leaked:
        by_model = ", ".join(f"{each.name} {each.leaked:,}" for each in rankings if each.leaked)
        if counts.scored:
            yield (
                f"**Trained on the test.** {counts.leaked:,} of {counts.leaked + counts.scored:,} interactions with a list lie in the "
                f"training range of a model ({by_model}). They are left out of all figures, for every model and baseline; the section "
                "'With what models were trained on' counts them."
            )
        else:
            yield (
                f"**Trained on the test.** All {counts.leaked:,} interactions with a list lie in the training range of a model "
                f"({by_model}). Every figure below is too good. Train on an earlier part of the log, or replay a later one (`--from`)."
            )
    for finding in audit:
        if finding.verdict == "FAIL":
            yield f"**The log fails a check: {finding.name}.** {finding.figure}. {finding.words}"


def _yellow(counts: Counts, rankings: Sequence[Ranked]) -> Iterable[str]:
    simple = [each for each in rankings if not each.is_model]
    for model in (each for each in rankings if each.is_model):
        better = [each for each in simple if each.accuracy.ndcg_at_10.value >= model.accuracy.ndcg_at_10.value]
        if better:
            figures = ", ".join(f"{each.name} {each.accuracy.ndcg_at_10.value:.4f}" for each in better)
            yield (
                f"**No better than counting.** {model.name} has NDCG@10 {model.accuracy.ndcg_at_10.value:.4f}; {figures}. "
                "Train longer, on a longer log or with another recipe before you serve it."
            )
    users = counts.scored_users or counts.users
    if users < FEW:
        yield f"**Few users.** The figures are of {users} users, so the intervals are wide and inexact."
