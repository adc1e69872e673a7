"""What an audit says: a verdict with its figure, and words for whoever must act."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["OK", "attention", "FAIL"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One look at a log.

    `attention`: figures made from this log are right, but mean something else than a reader may think. `FAIL`: figures
    made from it would be wrong, or nothing can be learned from it.
    """

    name: str
    verdict: Verdict
    figure: str
    """What was measured, short: `12.3% of the interactions`."""
    words: str
    """What it means, and what to do: whole sentences."""
    value: float | None = None
    """The figure for programs: a share from 0 to 1, a number of interactions, or milliseconds; the page says which."""
    version: str | None = None
    """The model version that it is about, NAME@VERSION. None: it is about the log alone."""


def share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def graded(value: float, attention: float, fail: float = float("inf")) -> Verdict:
    """The verdict on a value of which less is better."""
    return "FAIL" if value >= fail else "attention" if value >= attention else "OK"
