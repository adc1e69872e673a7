"""The pictures of a replay's report, as SVG. Figures are made without the global state of pyplot."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from io import StringIO
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from model.evaluation.axes import AXIS, COLOURS, GREYS, GRID, INK, label_ends, plain
from model.evaluation.replay.divisions import DAY_MS, DIVISIONS
from model.evaluation.replay.document import Picture
from model.evaluation.replay.found import Found, Part, Ranked
from model.evaluation.significance import Estimate
from model.evaluation.user_groups import FEW

_DASHES: Final = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))


def draw(found: Found) -> dict[str, Picture]:
    """The pictures that have something to show, by name: `accuracy`, `time`, `cost`, and one for each division."""
    colours = _colours(found)
    made = {
        "accuracy": (
            "HR@10 and NDCG@10 of the same interactions, with 95 % intervals over users.",
            _accuracy(found, colours),
        ),
        "time": (
            (
                f"NDCG@10 of each window ({width(found.window_ms)}; left), and of everything until its end (right). "
                "Bars: scored interactions. "
                f"Windows with fewer than {FEW} interactions are only in `report.json`."
            ),
            _over_time(found, colours),
        ),
        "cost": (
            (
                "What NDCG@10 costs: time for a list, and state per user. Up and to the left is better. Lines are the "
                "baselines, which need neither."
            ),
            _cost(found, colours),
        ),
        **{
            division.name: (
                (
                    f"{division.title}: NDCG@10. Below each group is its number of interactions; groups with fewer than {FEW} "
                    "are only in the table."
                ),
                _division(found, colours, division.name, division.x_label, division.labels),
            )
            for division in DIVISIONS
            if len(division.labels) > 2
        },
    }
    return {
        name: Picture(_svg(name, figure), caption, wide=name in ("accuracy", "time", "cost"))
        for name, (caption, figure) in made.items()
        if figure is not None
    }


def width(ms: int) -> str:
    """A width of time in words."""
    days, hours = ms // DAY_MS, ms * 24 // DAY_MS
    if days == 0:
        return "1 hour" if hours == 1 else f"{hours} hours"
    return "1 day" if days == 1 else f"{days:,} days"


def _colours(found: Found) -> dict[str, str]:
    models, simple = found.models, [each for each in found.rankings if not each.is_model]
    colours = {each.name: COLOURS[at % len(COLOURS)] for at, each in enumerate(models)}
    return colours | {each.name: GREYS[1] for each in simple}


def _dashes(found: Found) -> dict[str, Any]:
    simple = [each for each in found.rankings if not each.is_model]
    return {each.name: "-" for each in found.models} | {
        each.name: _DASHES[at % len(_DASHES)] for at, each in enumerate(simple)
    }


def _accuracy(found: Found, colours: dict[str, str]) -> Figure:
    figure = Figure(figsize=(9, 1.1 + 0.36 * len(found.rankings)), layout="constrained")
    measures: list[tuple[str, Callable[[Ranked], Estimate]]] = [
        ("HR@10", lambda each: each.accuracy.hr_at_10),
        ("NDCG@10", lambda each: each.accuracy.ndcg_at_10),
    ]
    for axes, (label, measure) in zip(figure.subplots(1, 2, sharey=True), measures, strict=True):
        for y, each in enumerate(found.rankings):
            estimate = measure(each)
            axes.barh(y, estimate.value, height=0.5, color=colours[each.name], alpha=0.85 if each.is_model else 0.5)
            axes.plot([estimate.low, estimate.high], [y, y], color=INK, linewidth=1.4, solid_capstyle="round")
        plain(axes, x_label=label)
        axes.set_yticks(range(len(found.rankings)), [each.name for each in found.rankings])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(found.rankings) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="x", color=GRID)
    return figure


def _over_time(found: Found, colours: dict[str, str]) -> Figure | None:
    enough = [window for window in found.rankings[0].windows if window.interactions >= FEW]
    if len(enough) < 2:
        return None
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, height_ratios=(5, 1))
    dashes, ends = _dashes(found), []
    for each in found.rankings:
        windows = [window for window in each.windows if window.interactions >= FEW]
        x = [_middle(window.from_ms, found.window_ms) for window in windows]
        style = {
            "color": colours[each.name],
            "linestyle": dashes[each.name],
            "linewidth": 1.8 if each.is_model else 1.3,
        }
        grid[0][0].plot(x, [w.ndcg_at_10 for w in windows], marker="o", markersize=3, **style)
        grid[0][1].plot(x, [w.ndcg_at_10_so_far for w in windows], **style)
        ends.append((windows[-1].ndcg_at_10_so_far, each.name, colours[each.name]))
    top = max(w.ndcg_at_10 for each in found.rankings for w in each.windows if w.interactions >= FEW)
    for at, title in enumerate(("in the window", "from the beginning")):
        plain(grid[0][at], x_label="", y_label="NDCG@10" if at == 0 else "")
        grid[0][at].set_title(title, fontsize=10.5, color=INK, loc="left")
        grid[0][at].grid(axis="y", color=GRID)
        grid[0][at].set_ylim(0, 1.08 * top or 1)
        windows = found.rankings[0].windows
        grid[1][at].bar(
            [_middle(w.from_ms, found.window_ms) for w in windows],
            [w.interactions for w in windows],
            width=0.85 * found.window_ms / DAY_MS,
            color=AXIS,
        )
        plain(grid[1][at], x_label="", y_label="n" if at == 0 else "")
        grid[1][at].locator_params(axis="y", nbins=2)
        grid[1][at].yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        grid[1][at].xaxis.set_major_formatter(FuncFormatter(lambda day, _: _day(day, found.window_ms)))
        grid[1][at].locator_params(axis="x", nbins=4)
    label_ends(grid[0][1], ends)
    return figure


def _middle(from_ms: int, window_ms: int) -> float:
    """In days."""
    return (from_ms + window_ms / 2) / DAY_MS


def _day(day: float, window_ms: int) -> str:
    moment = datetime.fromtimestamp(day * DAY_MS / 1_000, UTC)
    return moment.strftime("%d %b\n%H:%M" if window_ms < DAY_MS else "%d %b\n%Y")


def _division(found: Found, colours: dict[str, str], name: str, x_label: str, labels: Sequence[str]) -> Figure | None:
    groups = {
        each.name: [part for part in each.by.get(name, []) if part.interactions >= FEW] for each in found.rankings
    }
    shown = [label for label in labels if any(part.label == label for parts in groups.values() for part in parts)]
    if len(shown) < 2:
        return None
    figure = Figure(figsize=(7.4, 4.2), layout="constrained")
    axes, dashes, ends = figure.subplots(), _dashes(found), []
    for each in found.rankings:
        parts = groups[each.name]
        if not parts:
            continue
        axes.plot(
            [shown.index(part.label) for part in parts],
            [part.ndcg_at_10 for part in parts],
            marker="o",
            markersize=4,
            color=colours[each.name],
            linestyle=dashes[each.name],
            linewidth=1.8 if each.is_model else 1.3,
        )
        ends.append((parts[-1].ndcg_at_10, each.name, colours[each.name]))
    crowded = len(shown) > 12
    counts = _counts(groups, shown)
    axes.set_xticks(
        range(len(shown)),
        [label if crowded else f"{label}\n{_short(counts[label])}" for label in shown],
        fontsize=9 if not crowded else 8,
    )
    axes.set_xlim(-0.4, len(shown) - 0.6)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=GRID)
    plain(axes, x_label=x_label, y_label="NDCG@10")
    if crowded:
        axes.tick_params(axis="x", labelsize=8)
    label_ends(axes, ends)
    return figure


def _counts(groups: dict[str, list[Part]], labels: Sequence[str]) -> dict[str, int]:
    """The number of interactions of each part, of the first ranking that has it."""
    found: dict[str, int] = {}
    for parts in groups.values():
        for part in parts:
            found.setdefault(part.label, part.interactions)
    return {label: found[label] for label in labels}


def _cost(found: Found, colours: dict[str, str]) -> Figure | None:
    costs: list[tuple[str, Callable[[Ranked], float | None]]] = [
        ("ms for a list", lambda each: each.cost.ms_per_list if each.cost else None),
        ("bytes of state per user", lambda each: each.cost.bytes_per_user if each.cost else None),
    ]
    measured = [each for each in found.models if each.cost and (each.cost.ms_per_list or each.cost.bytes_per_user)]
    if not measured:
        return None
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    dashes = _dashes(found)
    top = 0.0
    for axes, (label, cost) in zip(figure.subplots(1, 2, sharey=True), costs, strict=True):
        for each in found.rankings:
            accuracy = each.accuracy.ndcg_at_10
            top = max(top, accuracy.high)
            if not each.is_model:
                axes.axhline(accuracy.value, color=colours[each.name], linestyle=dashes[each.name], linewidth=1.2)
                continue
            if x := cost(each):
                axes.plot([x, x], [accuracy.low, accuracy.high], color=colours[each.name], linewidth=1.6)
                axes.plot([x], [accuracy.value], "o", color=colours[each.name], markersize=8)
        axes.set_xscale("log")
        _decades(axes, [x for each in measured if (x := cost(each))])
        axes.set_ylim(bottom=0, top=1.12 * top or 1)
        axes.grid(axis="y", color=GRID)
        plain(axes, x_label=label, y_label="NDCG@10" if label.startswith("ms") else "")
    handles = [
        figure.axes[0].plot(
            [],
            [],
            color=colours[each.name],
            label=each.name,
            linestyle="" if each.is_model else dashes[each.name],
            marker="o" if each.is_model else "",
        )[0]
        for each in found.rankings
    ]
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=min(4, len(handles)),
        frameon=False,
        fontsize=9.5,
        labelcolor=INK,
    )
    return figure


def _decades(axes: Axes, values: Sequence[float]) -> None:
    """Readable ticks of a logarithmic axis: 1, 2 and 5 of each decade, and room on both sides."""
    if not values:
        return
    low, high = min(values) / 1.8, max(values) * 1.8
    ticks = [m * 10.0**e for e in range(-6, 13) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    axes.set_xlim(low, high)
    axes.set_xticks(ticks if len(ticks) <= 8 else [t for t in ticks if f"{t:e}"[0] == "1"])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.minorticks_off()


def _short(number: float) -> str:
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            return f"{number / scale:.3g}{letter}"
    return f"{number:.3g}"


def _svg(name: str, figure: Figure) -> str:
    """The figure without a size of its own. Equal figures have equal text."""
    text = StringIO()
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(
            text, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None, "Creator": None}
        )
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'\s(width|height)="[^"]*"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
    # Several pictures are on one page, where an id may be there only once.
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
