"""An outcome as Markdown, for people."""

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.crash.driver import Injection, Outcome
from tests.crash.progress import Used
from tests.crash.world import BYSTANDER

_MANY = 25


def report(outcome: Outcome) -> str:
    return "\n".join(_lines(outcome))


def _lines(outcome: Outcome) -> Iterator[str]:
    options, verdict = outcome.options, outcome.verdict
    yield f"seed {options.seed}, {options.workers} workers, {options.partitions} partitions, fed for {outcome.fed_s:.0f} s\n"
    yield "| fault | injected | median s to recover | worst s | longest wait of a record, s |"
    yield "|---|---:|---:|---:|---:|"
    yield from _faults(outcome.injections)
    yield ""
    done = [each for each in outcome.injections if each.reached]
    if verdict is None:
        yield "the oracle did not run"
    else:
        yield "| interactions | users | lists | forgotten | malformed | refused by the model | faults | restarts | lost | doubled | differing |"
        yield "|" + "---:|" * 11
        yield (
            f"| {verdict.interactions} | {verdict.users} | {verdict.lists} | {verdict.forgotten} | {verdict.malformed} | {verdict.refused} | {len(done)} "
            f"| {outcome.restarts} | {verdict.lost} | {verdict.doubled} | {verdict.differing} |"
        )
        yield from (f"- {example}" for example in verdict.examples)
    yield ""
    if verdict is not None:
        yield f"promotions: {outcome.promotions}; partitions went to another version {verdict.swaps} times"
    ended = ", ".join(f"{count} {how}" for how, count in sorted(outcome.upstream.items()))
    yield f"transactions of the upstream writer: {ended or 'none'}; the input was deleted {outcome.deletions} times"
    yield ""
    yield from _usage([used for used in outcome.usage if used.name == BYSTANDER])
    yield ""
    yield from _exits(outcome)
    if outcome.new_producers:
        yield f"the feeder's client failed {outcome.new_producers} times"
    yield from (f"FAILED {failure}" for failure in outcome.failures)
    yield "everything holds" if outcome.holds else "NOT everything holds"


def _faults(injections: Sequence[Injection]) -> Iterator[str]:
    kinds: defaultdict[str, list[Injection]] = defaultdict(list)
    for each in injections:
        kinds[each.fault].append(each)
    for name, all_of_it in sorted(kinds.items()):
        reached = [each for each in all_of_it if each.reached]
        seconds = [each.seconds for each in reached if each.seconds is not None]
        missed = f" (and {len(all_of_it) - len(reached)} times not possible)" if len(reached) < len(all_of_it) else ""
        failed = f" (not recovered {len(reached) - len(seconds)} times)" if len(seconds) < len(reached) else ""
        median, worst = (f"{statistics.median(seconds):.1f}", f"{max(seconds):.1f}") if seconds else ("–", "–")
        waited = f"{max(each.waited_s for each in reached):.1f}" if seconds else "–"
        yield f"| {name} | {len(reached)}{missed}{failed} | {median} | {worst} | {waited} |"


def _usage(samples: Sequence[Used]) -> Iterator[str]:
    """The longest-lived process of the bystander, by quarters of its life. Medians: while a broker is away there are
    connections for both.
    """
    if not samples:
        return
    pid, _ = Counter(used.pid for used in samples).most_common(1)[0]
    mine = [used for used in samples if used.pid == pid]
    starts = [len(mine) * part // 4 for part in range(5)]
    quarters = [mine[start:end] for start, end in pairwise(starts) if end > start]
    yield (
        "| the bystander, median (most) of each quarter | "
        + " | ".join(str(number) for number, _ in enumerate(quarters, 1))
        + " |"
    )
    yield "|---|" + "---:|" * len(quarters)
    yield "| RSS, MB | " + " | ".join(_median_and_most([used.rss_mb for used in each]) for each in quarters) + " |"
    yield "| open files | " + " | ".join(_median_and_most([used.files for used in each]) for each in quarters) + " |"


def _median_and_most(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f} ({max(values):.0f})"


def _exits(outcome: Outcome) -> Iterator[str]:
    """The exits of processes that nobody killed or asked to end."""
    ended = Counter((each.code, _general(each.last_line)) for each in outcome.exits if each.failure)
    if ended:
        yield f"{sum(ended.values())} times a worker ended by itself and was started again:"
    for (code, line), times in ended.most_common(_MANY):
        yield f"- {times} × exit {code}: {line[:300]}"
    if surprising := [each for each in outcome.exits if each.code == 0 and not each.asked]:
        yield f"{len(surprising)} times a worker ended with 0 that nobody asked to"


def _general(line: str) -> str:
    """Without times, paths and numbers, so that equal reasons are counted together."""
    line = re.sub(r"^\d{4}-\S+ \S+ ", "", line)
    line = re.sub(r"/\S+/", "…/", line)
    return re.sub(r"\d+", "#", line)
