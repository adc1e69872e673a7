"""The check `trial`: a child process loads the candidate, repeats its golden lists, and is not slower or larger than
the champion.

Machines are noisy. So the champion and the candidate are tried in turn. In each round the candidate's figure is taken
as a share of the champion's, and the median of the shares counts. A candidate that is above the limit after three
rounds gets four more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from model.version.trial import Trial
from stream.promotion.record import Check

NAME: Final = "trial"
MOST_INCREASE: Final = 0.10
NOT_COUNTED_MS: Final = 1.0
NOT_COUNTED_BYTES: Final = 16 << 20
"""Smaller differences are not counted: no reader of lists notices them, and no shared machine measures them."""
ROUNDS: Final = 3
MOST_ROUNDS: Final = 7

Try = Callable[[], Trial]
Round = tuple[Trial, Trial]
"""The champion and the candidate, one after the other."""


@dataclass(frozen=True, slots=True)
class Tested:
    """The check, and whether the candidate itself passed: if not, nothing else may load it."""

    check: Check
    usable: bool


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of both: medians over the rounds, and the median of the rounds' shares: 1.1 is a tenth more."""

    champion: float
    candidate: float
    share: float


def trial(candidate: Try, champion: Try | None) -> Tested:
    """Fails if the candidate's trial fails, or if its p95 or its memory is more than a tenth above the champion's.

    Args:
        champion: None: nothing is compared.
    """
    first = candidate()
    if first.why is not None:
        return Tested(_failed(first.why), usable=False)
    alone = f"golden lists repeated; {_words(first.p95_ms, first.rss_bytes)}; loaded in {first.load_s or 0:.1f} s"
    if champion is None:
        return Tested(Check(name=NAME, result="passed", figure=alone), usable=True)
    rounds: list[Round] = []
    while len(rounds) < ROUNDS or (len(rounds) < MOST_ROUNDS and above(rounds)):
        before, after = champion(), candidate() if rounds else first
        if before.why is not None:
            return Tested(
                _failed(f"{alone}. Nothing is compared, because the champion fails: {before.why}"), usable=True
            )
        if after.why is not None:
            return Tested(_failed(f"it passed {len(rounds)} times, and then not: {after.why}"), usable=False)
        rounds.append((before, after))
    return Tested(judged(rounds), usable=True)


def judged(rounds: Sequence[Round]) -> Check:
    """What some rounds say."""
    p95, rss = _p95(rounds), _rss(rounds)
    theirs = _words(None if p95 is None else p95.champion, None if rss is None else rss.champion)
    own = _words(None if p95 is None else p95.candidate, None if rss is None else rss.candidate)
    figure = f"golden lists repeated; {own}; the champion: {theirs} (medians of {len(rounds)} rounds)"
    if wrong := above(rounds):
        return _failed(f"{figure}: {' and '.join(wrong)}, and {MOST_INCREASE:.0%} may be")
    return Check(name=NAME, result="passed", figure=figure)


def above(rounds: Sequence[Round]) -> list[str]:
    """Which figures of the candidate are above the limit, in words."""
    return [
        f"{what} is {found.share - 1:.0%} higher"
        for what, found, not_counted in (
            ("the time of a list", _p95(rounds), NOT_COUNTED_MS),
            ("memory", _rss(rounds), NOT_COUNTED_BYTES),
        )
        if found is not None and found.share > 1 + MOST_INCREASE and found.candidate - found.champion > not_counted
    ]


def _p95(rounds: Sequence[Round]) -> Figure | None:
    return _figure([(before.p95_ms, after.p95_ms) for before, after in rounds])


def _rss(rounds: Sequence[Round]) -> Figure | None:
    """None where the system does not say how much memory a process takes."""
    return _figure([(before.rss_bytes, after.rss_bytes) for before, after in rounds])


def _figure(pairs: Sequence[tuple[float | None, float | None]]) -> Figure | None:
    known = [(before, after) for before, after in pairs if before and after]
    if not known:
        return None
    return Figure(
        median(before for before, _ in known),
        median(after for _, after in known),
        median(after / before for before, after in known),
    )


def _words(p95_ms: float | None, rss_bytes: float | None) -> str:
    memory = "" if rss_bytes is None else f", {rss_bytes / 2**20:,.0f} MB"
    return f"a list in {p95_ms or 0:.2f} ms (p95){memory}"


def _failed(figure: str) -> Check:
    return Check(name=NAME, result="failed", figure=figure)
