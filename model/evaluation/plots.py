"""The pictures of an evaluation. The extra `evaluate` installs matplotlib. Figures are made without the global state of
pyplot.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from model.evaluation.axes import COLOURS, GREYS, INK, dot, label_ends, plain
from model.evaluation.compare import Evaluation, Group, Mode, Ranking, Subject
from model.evaluation.significance import Estimate
from model.evaluation.user_groups import FEW

DPI = 144


def draw(evaluation: Evaluation, folder: Path) -> dict[str, str]:
    """Write the PNG files that have something to show, and return a caption for each name."""
    mode, colours = evaluation.modes[0], _colours(evaluation)
    in_mode = f"NDCG@10, {mode_label(mode)}. Groups with fewer than {FEW} users are only in the table"
    drawn = {
        "accuracy.png": (
            "HR@10 and NDCG@10 with 95 % intervals. Hollow: README-mode.",
            _accuracy(evaluation, colours),
        ),
        "history.png": (
            f"By length of the history. {in_mode}.",
            _grouped(mode, colours, lambda ranking: ranking.by_history, "interactions before the target"),
        ),
        "position.png": (
            f"By how full working memory was, for users with a fold. {in_mode}.",
            _grouped(
                mode,
                colours,
                lambda ranking: ranking.by_position,
                "working memory, as a share of a segment (0: just folded)",
            ),
        ),
        "folds.png": (
            f"By number of folds. {in_mode}.",
            _grouped(mode, colours, lambda ranking: ranking.by_folds, "folds before the target"),
        ),
        "shuffle.png": (
            "NDCG@10 that is lost with another user's memory, with the 95 % interval over users. To the right of zero, memories help.",
            _shuffle(evaluation, colours),
        ),
        "drift.png": (
            "How far the memory of folds one by one is from the memory of one call. Models without drift, or without comparable memories, are only in the table.",
            _drift(evaluation, colours),
        ),
    }
    captions = {}
    for name, (caption, figure) in drawn.items():
        (folder / name).unlink(missing_ok=True)
        if figure is not None:
            figure.savefig(folder / name, dpi=DPI, bbox_inches="tight", facecolor="white")
            captions[name] = caption
    return captions


def labels_in_order(groups: Iterable[Sequence[Group]]) -> list[str]:
    """The labels of all rankings, in the order of their numbers."""
    least = {group.label: group.least for of_one in groups for group in of_one}
    return sorted(least, key=lambda label: least[label])


def mode_label(mode: Mode) -> str:
    return "README-mode" if mode.name == "readme" else "stream-mode"


def _colours(evaluation: Evaluation) -> dict[str, str]:
    models = [subject.reference for subject in evaluation.subjects]
    colours = {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(models)}
    return colours | {name: GREYS[at % len(GREYS)] for at, name in enumerate(evaluation.baselines)}


def _accuracy(evaluation: Evaluation, colours: dict[str, str]) -> Figure:
    names = [ranking.name for ranking in evaluation.modes[0].rankings]
    figure = Figure(figsize=(9, 1.6 + 0.42 * len(names)), layout="constrained")
    measures: list[tuple[str, Callable[[Ranking], Estimate]]] = [
        ("HR@10", lambda r: r.hr[10]),
        ("NDCG@10", lambda r: r.ndcg[10]),
    ]
    for axes, (label, measure) in zip(figure.subplots(1, 2, sharey=True), measures, strict=True):
        for at, mode in enumerate(evaluation.modes):
            offset = (at - (len(evaluation.modes) - 1) / 2) * 0.3
            for y, ranking in enumerate(mode.rankings):
                estimate = measure(ranking)
                dot(axes, estimate, y + offset, colours[ranking.name], filled=at == 0)
        plain(axes, x_label=label)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="x", color="#e6e6e6")
    # Outside of the plots: beside a dot, a label lies over another dot or label as soon as values are close.
    shown = [_key(mode_label(mode), filled=at == 0) for at, mode in enumerate(evaluation.modes)]
    figure.legend(
        handles=shown, loc="outside upper right", ncols=len(shown), frameon=False, fontsize=9.5, labelcolor=INK
    )
    return figure


def _key(label: str, *, filled: bool) -> Line2D:
    """The entry of a legend for dots like those of `dot`."""
    return Line2D(
        [],
        [],
        color=INK,
        linewidth=1.6,
        marker="o",
        markersize=6.5,
        markerfacecolor=INK if filled else "white",
        markeredgewidth=1.5,
        label=label,
    )


def _grouped(
    mode: Mode, colours: dict[str, str], groups: Callable[[Ranking], Sequence[Group]], x_label: str
) -> Figure | None:
    """A line per ranking over its groups, with 95 % intervals. Below each group is its number of users."""
    enough = {ranking.name: [group for group in groups(ranking) if group.targets >= FEW] for ranking in mode.rankings}
    with_groups = [ranking for ranking in mode.rankings if enough[ranking.name]]
    if not with_groups:
        return None
    labels = labels_in_order(enough.values())
    counts = {
        label: {group.targets for found in enough.values() for group in found if group.label == label}
        for label in labels
    }
    figure = Figure(figsize=(8.5, 4.4), layout="constrained")
    axes = figure.subplots()
    ends = []
    for at, ranking in enumerate(with_groups):
        # Side by side, so that intervals do not cover each other.
        shift = (at - (len(with_groups) - 1) / 2) * min(0.08, 0.5 / len(with_groups))
        found = enough[ranking.name]
        x = [labels.index(group.label) + shift for group in found]
        y = [group.ndcg_at_10.value for group in found]
        colour = colours[ranking.name]
        axes.vlines(
            x,
            [g.ndcg_at_10.low for g in found],
            [g.ndcg_at_10.high for g in found],
            color=colour,
            linewidth=1.2,
            alpha=0.55,
        )
        axes.plot(x, y, "o-" if ranking.by_folds else "o--", color=colour, markersize=4.5, linewidth=1.8)
        ends.append((y[-1], ranking.name, colour))
    axes.set_xticks(range(len(labels)), [f"{label}\n{_count(counts[label])}" for label in labels])
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#e6e6e6")
    plain(axes, x_label=x_label, y_label="NDCG@10")
    label_ends(axes, ends)
    return figure


def _drift(evaluation: Evaluation, colours: dict[str, str]) -> Figure | None:
    points = {subject.reference: _visible_drift(subject) for subject in evaluation.subjects}
    drifting = [subject for subject in evaluation.subjects if points[subject.reference]]
    if not drifting:
        return None
    figure = Figure(figsize=(8.5, 4.4), layout="constrained")
    axes, ends = figure.subplots(), []
    trained = {subject.probes.trained_segments for subject in drifting}
    for subject in drifting:
        folds, ratios = zip(*points[subject.reference], strict=True)
        colour = colours[subject.reference]
        axes.plot(folds, ratios, "o-", color=colour, markersize=4.5, linewidth=1.8)
        ends.append((ratios[-1], subject.reference, colour))
    all_ratios = [ratio for found in points.values() for _, ratio in found]
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    numbers = sorted({number for found in points.values() for number, _ in found})
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(all_ratios) < 100 * min(all_ratios) else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    axes.grid(axis="y", color="#e6e6e6")
    if len(trained) == 1 and (segments := trained.pop()) is not None and segments < numbers[-1]:
        axes.axvspan(segments, axes.get_xlim()[1], color="#f4f1ea", zorder=0)
        axes.set_xlim(right=numbers[-1] * 1.08)
        axes.annotate(
            f"more folds than a training window's {segments}",
            (segments, 0),
            xycoords=("data", "axes fraction"),
            xytext=(5, 7),
            textcoords="offset points",
            fontsize=8.5,
            color="#6b6453",
        )
    plain(axes, x_label="folds", y_label="drift: MSE(iterative, one-time) / variance")
    label_ends(axes, ends)
    return figure


def _visible_drift(subject: Subject) -> list[tuple[int, float]]:
    """Folds and drift. Zero, as after one fold, has no place on a logarithmic axis, and rounding counts as zero."""
    return [
        (drift.folds, drift.ratio) for drift in subject.probes.drift if drift.ratio is not None and drift.ratio > 1e-6
    ]


def _shuffle(evaluation: Evaluation, colours: dict[str, str]) -> Figure | None:
    shown = [
        (subject.reference, subject.probes.shuffled)
        for subject in evaluation.subjects
        if subject.probes.shuffled is not None
    ]
    if not shown:
        return None
    figure = Figure(figsize=(8.5, 1.2 + 0.42 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="#9a9a9a", linewidth=1)
    for y, (name, shuffled) in enumerate(shown):
        dot(axes, shuffled.lost, y, colours[name], filled=True)
        label = f"p = {shuffled.p:.2g}; {shuffled.ndcg_own.value:.4f} with the own one"
        axes.annotate(
            label,
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
        )
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(axis="x", color="#e6e6e6")
    axes.locator_params(axis="x", nbins=6)
    plain(axes, x_label="NDCG@10 lost with another user's memory")
    axes.spines["left"].set_visible(False)
    return figure


def _count(counts: set[int]) -> str:
    least, most = min(counts), max(counts)
    return f"n = {least:,}" if least == most else f"n = {least:,}–{most:,}"
