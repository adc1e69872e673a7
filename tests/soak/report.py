"""Figures for people: Markdown tables, one line per claim, and a plot."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.soak.figures import AFTER_S, MB_PER_100_SWAPS, UNPROMOTED, WARM, Growth, Phase, Swap
from tests.soak.run import Outcome

RATIO = 2.0
"""The p99 of steps in swaps may be so many times that outside."""
NAMES = {"rss_mb": "RSS, MB", "threads": "threads", "files": "open files"}


def tables(outcome: Outcome, phases: Sequence[Phase], growth: Sequence[Growth]) -> Iterator[str]:
    yield "| | " + " | ".join(phase.name for phase in phases) + " |"
    yield "|---|" + "---:|" * len(phases)
    rows: list[tuple[str, list[str]]] = [
        ("promotions", [f"{phase.promotions}" for phase in phases]),
        ("swaps, of all workers", [f"{phase.swaps}" for phase in phases]),
        ("from promotion to swap, median", [f"{phase.served_p50_s:.2f} s" for phase in phases]),
        ("from promotion to swap, longest", [f"{phase.served_longest_s:.2f} s" for phase in phases]),
        ("steps in swaps", [f"{phase.during.steps:,}" for phase in phases]),
        ("steps outside", [f"{phase.outside.steps:,}" for phase in phases]),
        ("p50 of steps in swaps", [f"{phase.during.p50_ms:.1f} ms" for phase in phases]),
        ("p50 of steps outside", [f"{phase.outside.p50_ms:.1f} ms" for phase in phases]),
        ("p99 of steps in swaps", [f"{phase.during.p99_ms:.1f} ms" for phase in phases]),
        ("p99 of steps outside", [f"{phase.outside.p99_ms:.1f} ms" for phase in phases]),
        ("the one as a multiple of the other", [f"{phase.ratio:.2f}" for phase in phases]),
        ("longest pause of steps at a swap", [f"{phase.longest_pause_ms:.0f} ms" for phase in phases]),
        ("longest pause of steps outside", [f"{phase.longest_pause_outside_ms:.0f} ms" for phase in phases]),
    ]
    for name, cells in rows:
        yield f"| {name} | " + " | ".join(cells) + " |"
    yield ""
    yield f"| from the {WARM}th promotion on | worker | used | first | last | most | per 100 promotions or beats |"
    yield "|---|---|---|---:|---:|---:|---:|"
    for each in growth:
        yield (
            f"| {each.phase} | {each.worker} | {NAMES[each.what]} | {each.first:.0f} | {each.last:.0f} | {each.most:.0f} "
            f"| {each.per_100_swaps:+.1f} |"
        )
    verdict = outcome.verdict
    if verdict is not None:
        yield ""
        yield "| interactions | users | lists | swaps of partitions | lost | doubled | differing |"
        yield "|" + "---:|" * 7
        yield (
            f"| {verdict.interactions:,} | {verdict.users:,} | {verdict.lists:,} | {verdict.swaps:,} "
            f"| {verdict.lost} | {verdict.doubled} | {verdict.differing} |"
        )
        yield from (f"- {example}" for example in verdict.examples)


def claims(outcome: Outcome, phases: Sequence[Phase], growth: Sequence[Growth]) -> Iterator[tuple[bool, str]]:
    """Each claim, and whether it holds."""
    verdict = outcome.verdict
    yield verdict is not None and verdict.holds, "nothing is lost, doubled or different, and each version was promoted"
    for phase in phases:
        workers = outcome.options.workers
        yield (
            phase.swaps == phase.promotions * workers,
            f"{phase.name}: each worker served each promotion: {phase.swaps} of {phase.promotions * workers}",
        )
        yield phase.ratio <= RATIO, f"{phase.name}: p99 of steps in swaps is {phase.ratio:.2f} times that outside"
    alone = {(each.worker, each.what): each.per_100_swaps for each in growth if each.phase == UNPROMOTED}
    for each in growth:
        if each.phase == UNPROMOTED:
            continue
        limit = MB_PER_100_SWAPS if each.what == "rss_mb" else 1.0
        added = each.per_100_swaps - alone.get((each.worker, each.what), 0.0)
        what = f"{NAMES[each.what]} of {each.worker}"
        yield added <= limit, f"{each.phase}: 100 promotions add {added:+.1f} to {what}, at most {limit:.0f}"


def plot(path: Path, outcome: Outcome, swaps: Sequence[Swap], phases: Sequence[Phase]) -> None:
    """Three panels over the promotions: time until the swap, the slowest step in it, memory."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "rec2pm"
    from matplotlib import pyplot as plt

    figure, (served, slow, memory) = plt.subplots(3, 1, sharex=True, figsize=(8, 7), layout="constrained")
    for color, worker in zip(("tab:blue", "tab:orange", "tab:green"), outcome.notes, strict=False):
        mine = [each for each in swaps if each.worker == worker]
        numbers = [each.number + 1 for each in mine]
        served.plot(numbers, [each.served_s for each in mine], color=color, lw=0.8, label=worker)
        slow.plot(numbers, [each.slowest_ms for each in mine], color=color, lw=0.8)
        used = [each for each in outcome.used if each.worker == worker]
        memory.plot([each.swap for each in used], [each.rss_mb for each in used], color=color, lw=0.8)
    first_other = next((at for at, other in enumerate(outcome.formats) if other), None)
    for panel in (served, slow, memory):
        panel.set_ylim(bottom=0)
        panel.grid(lw=0.3)
        if first_other:
            panel.axvline(first_other + 0.5, color="gray", lw=0.8, ls="--")
    served.set_ylabel("promotion to swap, s")
    served.legend(loc="upper left", fontsize="small")
    if first_other:
        served.set_title("left of the line: one memory format; right of it: two in turn", fontsize="small")
    slow.axhline(phases[0].outside.p99_ms, color="gray", lw=0.8, label="p99 of all steps outside swaps")
    slow.legend(loc="upper left", fontsize="small")
    slow.set_ylabel(f"slowest step until {AFTER_S:.0f} s after the swap, ms", fontsize="small")
    memory.set_ylabel("RSS of the worker, MB")
    memory.set_xlabel("promotion")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
