"""The gate: what a version must show before it is promoted. Every check runs, also after another has failed.

    files        its files, their hashes, and whether workers can read them
    champion     only where the champion cannot be read: what compares with it is left out then
    trial        a child process loads it and repeats its golden lists; time and memory beside the champion's
    known items  how many of the newest interactions its catalogue knows
    quality      champion and candidate on the newest part of a log
    lists        how much their lists have in common, for information

A champion that cannot be read is a failed check, because the gate would otherwise pass what it could not compare.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import polars as pl

from model.errors import ModelError
from model.version.registry import ModelVersion
from model.version.runtime import Runtime
from model.version.trial import tried
from stream.promotion.checks import files, known_items, lists, quality, trial
from stream.promotion.checks.files import Fetched
from stream.promotion.newest import Newest
from stream.promotion.record import Check

CHAMPION: Final = "champion"
NOT_FORCED: Final = frozenset({files.NAME})
"""Checks that nobody can pass over."""
_NO_LOG: Final = "no log was given: --log LOG compares the champion and it on the newest part of one"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the gate allows.

    `max_ndcg_drop`: how much NDCG@10 may be lost. `timeout_s` and `memory_bytes` are the limits of one trial; None: the
    memory that there is.
    """

    max_ndcg_drop: float = quality.MAX_NDCG_DROP
    timeout_s: float = 120.0
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Champion:
    """What the alias names now: where its files may be, the best place first, and what its record says."""

    reference: str
    places: Sequence[ModelVersion]
    sha256: str
    segment_length: int


def gate(
    candidate: ModelVersion,
    champion: Champion | None,
    *,
    folder: Path,
    newest: Callable[[], Newest],
    log: pl.LazyFrame | None,
    rules: Rules,
    heard: Callable[[Check], None],
) -> tuple[list[Check], Fetched | None]:
    """Run every check.

    Args:
        champion: None before the first promotion: nothing is compared then.
        folder: an empty one, where both versions are copied to.
        newest: reads the newest interactions.
        log: `user_id`, `item_id`, `timestamp` (ms); None: quality is left out.
        heard: called with each check when it is done.

    Returns:
        The checks, and the candidate if its files are right.

    Raises:
        What `newest` raises.
    """
    done: list[Check] = []

    def said(check: Check) -> None:
        done.append(check)
        heard(check)

    found, after = files.files(candidate, folder / "candidate", None if champion is None else champion.segment_length)
    said(found)
    before, alone = _beside(champion, after, folder)
    if alone.result == "failed":
        said(alone)
    if after is None:
        for name in (trial.NAME, known_items.NAME, quality.NAME, lists.NAME):
            said(_left_out(name, "its files cannot be used"))
        return done, None
    tested = trial.trial(_trying(after, rules), None if before is None else _trying(before, rules))
    said(tested.check)
    interactions = newest()
    said(known_items.known_items(interactions, after.catalogue(), None if before is None else before.catalogue()))
    for check in _compared(interactions, log, before, after if tested.usable else None, _why_alone(alone), rules):
        said(check)
    return done, after


def _beside(champion: Champion | None, candidate: Fetched | None, folder: Path) -> tuple[Fetched | None, Check]:
    """The champion to compare with, and why there is none."""
    if champion is None:
        return None, _left_out(CHAMPION, "there is no champion yet")
    if candidate is not None and candidate.sha256 == champion.sha256:
        return None, _left_out(CHAMPION, "it is the champion itself")
    reasons = []
    for number, place in enumerate(champion.places):
        try:
            return files.fetched(place, folder / f"champion-{number}"), _left_out(CHAMPION, "")
        except ModelError as error:
            reasons.append(str(error))
    why = f"the champion {champion.reference} cannot be read: {'; '.join(reasons) or 'it is nowhere'}"
    return None, Check(name=CHAMPION, result="failed", figure=why)


def _trying(version: Fetched, rules: Rules) -> trial.Try:
    return partial(tried, version.folder, version.sha256, timeout_s=rules.timeout_s, memory_bytes=rules.memory_bytes)


def _compared(
    interactions: Newest,
    log: pl.LazyFrame | None,
    before: Fetched | None,
    after: Fetched | None,
    alone: str,
    rules: Rules,
) -> Iterator[Check]:
    """The checks that load both versions into this process. `after` is None if the candidate did not pass alone."""
    reason = alone if before is None else "its trial failed"
    if before is None or after is None:
        yield _left_out(quality.NAME, reason)
        yield _left_out(lists.NAME, reason)
        return
    try:
        champion, candidate = (Runtime.load(each.folder, each.sha256) for each in (before, after))
    except ModelError as error:
        yield Check(name=quality.NAME, result="failed", figure=str(error))
        yield _left_out(lists.NAME, "a version cannot be loaded")
        return
    if log is None:
        yield _left_out(quality.NAME, _NO_LOG)
    else:
        yield _or_failed(quality.NAME, partial(quality.quality, log, champion, candidate, rules.max_ndcg_drop))
    yield _or_failed(lists.NAME, partial(lists.lists, interactions, champion, candidate))


def _or_failed(name: str, check: Callable[[], Check]) -> Check:
    """A program that fails on what it is asked fails the check."""
    try:
        return check()
    except ModelError as error:
        return Check(name=name, result="failed", figure=str(error))


def _why_alone(champion: Check) -> str:
    return "the champion cannot be read" if champion.result == "failed" else champion.figure


def _left_out(name: str, why: str) -> Check:
    return Check(name=name, result="left out", figure=why)
