"""An evaluation's pictures. matplotlib comes with the extra `evaluate`; its figures are made one by one, without pyplot's global state."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.evaluation import Evaluation, Group, Mode, Ranking
from model.significance import Estimate

COLOURS = ("#1f6fb4", "#d1495b", "#2a9d6f", "#e08e1b", "#7b4fb5", "#14919b", "#b3407f", "#7a6a1d", "#4a5a6a")
GREYS = ("#8c8c8c", "#b9b9b9")
INK = "#2b2b2b"
DPI = 144


def draw(evaluation: Evaluation, folder: Path) -> list[tuple[Path, str]]:
    """Write the PNG files and return them with a caption each."""
    mode = evaluation.modes[0]
    colours = _colours(evaluation)
    drawn: list[tuple[str, str, Figure]] = [
        (
            "accuracy.png",
            "HR@10 and NDCG@10 with 95 % intervals; filled: stream-mode, hollow: README-mode.",
            _accuracy(evaluation, colours),
        ),
        (
            "history.png",
            f"NDCG@10 by length of the history, {mode.name}-mode.",
            _grouped(mode, colours, lambda ranking: ranking.by_history, "interactions before the target"),
        ),
    ]
    if any(ranking.by_position for ranking in mode.rankings):
        drawn.append(
            (
                "position.png",
                f"NDCG@10 by how full working memory was, of users with a fold, {mode.name}-mode.",
                _grouped(mode, colours, lambda ranking: ranking.by_position, "working memory, as a share of a segment (0: just folded)"),
            )
        )
        drawn.append(
            (
                "folds.png",
                "NDCG@10 by number of folds; and how far memories folded one by one are from those of one call.",
                _folds(evaluation, colours),
            )
        )
    if any(subject.probes.shuffled for subject in evaluation.subjects):
        drawn.append(
            ("shuffle.png", "NDCG@10 with a user's own memory (filled) and with another user's (hollow).", _shuffle(evaluation, colours))
        )
    written = []
    for name, caption, figure in drawn:
        figure.savefig(folder / name, dpi=DPI, bbox_inches="tight", facecolor="white")
        written.append((folder / name, caption))
    return written


def labels_in_order(groups: Iterable[Sequence[Group]]) -> list[str]:
    """The labels that any of the rankings has, as their numbers go."""
    least = {group.label: group.least for of_one in groups for group in of_one}
    return sorted(least, key=lambda label: least[label])


def _colours(evaluation: Evaluation) -> dict[str, str]:
    models = [subject.reference for subject in evaluation.subjects]
    colours = {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(models)}
    return colours | {name: GREYS[at % len(GREYS)] for at, name in enumerate(evaluation.baselines)}


def _accuracy(evaluation: Evaluation, colours: dict[str, str]) -> Figure:
    names = [ranking.name for ranking in evaluation.modes[0].rankings]
    figure = Figure(figsize=(9, 1.3 + 0.42 * len(names)), layout="constrained")
    measures: list[tuple[str, Callable[[Ranking], Estimate]]] = [("HR@10", lambda r: r.hr[10]), ("NDCG@10", lambda r: r.ndcg[10])]
    for axes, (label, measure) in zip(figure.subplots(1, 2, sharey=True), measures, strict=True):
        for at, mode in enumerate(evaluation.modes):
            offset = (at - (len(evaluation.modes) - 1) / 2) * 0.3
            for y, ranking in enumerate(mode.rankings):
                _dot(axes, measure(ranking), y + offset, colours[ranking.name], filled=at == 0)
        _plain(axes, x_label=label)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.grid(axis="x", color="#e6e6e6")
    return figure


def _dot(axes: Axes, estimate: Estimate, y: float, colour: str, *, filled: bool) -> None:
    axes.plot([estimate.low, estimate.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="round")
    axes.plot(
        [estimate.value],
        [y],
        "o",
        markersize=6.5,
        markerfacecolor=colour if filled else "white",
        markeredgecolor=colour,
        markeredgewidth=1.5,
    )


def _grouped(mode: Mode, colours: dict[str, str], groups: Callable[[Ranking], Sequence[Group]], x_label: str) -> Figure:
    figure = Figure(figsize=(8.5, 4.4), layout="constrained")
    axes = figure.subplots()
    _lines(axes, mode, colours, groups)
    _plain(axes, x_label=x_label, y_label="NDCG@10")
    return figure


def _lines(axes: Axes, mode: Mode, colours: dict[str, str], groups: Callable[[Ranking], Sequence[Group]]) -> None:
    """A line per ranking over its groups, with 95 % intervals; below each group how many users it has, where all agree on it."""
    with_groups = [ranking for ranking in mode.rankings if groups(ranking)]
    labels = labels_in_order(groups(ranking) for ranking in with_groups)
    counts = {label: {group.targets for ranking in with_groups for group in groups(ranking) if group.label == label} for label in labels}
    ends = []
    for at, ranking in enumerate(with_groups):
        # Side by side, so that intervals can be told apart.
        shift = (at - (len(with_groups) - 1) / 2) * min(0.08, 0.5 / len(with_groups))
        found = groups(ranking)
        x = [labels.index(group.label) + shift for group in found]
        y = [group.ndcg_at_10.value for group in found]
        colour = colours[ranking.name]
        axes.vlines(x, [g.ndcg_at_10.low for g in found], [g.ndcg_at_10.high for g in found], color=colour, linewidth=1.2, alpha=0.55)
        axes.plot(x, y, "o-", color=colour, markersize=4.5, linewidth=1.8)
        ends.append((y[-1], ranking.name, colour))
    axes.set_xticks(range(len(labels)), [f"{label}\n{_count(counts[label])}" for label in labels])
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#e6e6e6")
    _label_ends(axes, ends)


def _folds(evaluation: Evaluation, colours: dict[str, str]) -> Figure:
    drifting = [subject for subject in evaluation.subjects if any(drift.ratio > 0 for drift in subject.probes.drift)]
    figure = Figure(figsize=(12 if drifting else 8.5, 4.4), layout="constrained")
    grid = figure.subplots(1, 2 if drifting else 1, squeeze=False)[0]
    mode = evaluation.modes[0]
    _lines(grid[0], mode, colours, lambda ranking: ranking.by_folds)
    _plain(grid[0], x_label=f"folds before the target ({mode.name}-mode)", y_label="NDCG@10")
    if not drifting:
        return figure
    axes, ends = grid[1], []
    trained = {subject.probes.trained_segments for subject in drifting}
    for subject in drifting:
        # One fold is one call: there is no difference, and zero has no place on this axis.
        told = [drift for drift in subject.probes.drift if drift.ratio > 0]
        colour = colours[subject.reference]
        axes.plot([drift.folds for drift in told], [drift.ratio for drift in told], "o-", color=colour, markersize=4.5, linewidth=1.8)
        ends.append((told[-1].ratio, subject.reference, colour))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    numbers = sorted({drift.folds for subject in drifting for drift in subject.probes.drift if drift.ratio > 0})
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.minorticks_off()
    axes.grid(axis="y", color="#e6e6e6")
    if len(trained) == 1 and (segments := trained.pop()) is not None and segments < numbers[-1]:
        axes.axvspan(segments, axes.get_xlim()[1], color="#f4f1ea", zorder=0)
        axes.set_xlim(right=numbers[-1] * 1.08)
        axes.annotate(
            f"more folds than a training window's {segments}",
            (segments, 1),
            xycoords=("data", "axes fraction"),
            xytext=(5, -12),
            textcoords="offset points",
            fontsize=8.5,
            color="#6b6453",
        )
    _plain(axes, x_label="folds", y_label="drift: MSE(iterative, one-time) / variance")
    _label_ends(axes, ends)
    return figure


def _shuffle(evaluation: Evaluation, colours: dict[str, str]) -> Figure:
    told = [(subject.reference, subject.probes.shuffled) for subject in evaluation.subjects if subject.probes.shuffled is not None]
    figure = Figure(figsize=(8.5, 1.2 + 0.5 * len(told)), layout="constrained")
    axes = figure.subplots()
    for y, (name, shuffled) in enumerate(told):
        axes.plot([shuffled.ndcg_others.value, shuffled.ndcg_own.value], [y, y], color="#cfcfcf", linewidth=3, zorder=1)
        _dot(axes, shuffled.ndcg_others, y + 0.13, colours[name], filled=False)
        _dot(axes, shuffled.ndcg_own, y - 0.13, colours[name], filled=True)
        right = max(shuffled.ndcg_own.high, shuffled.ndcg_others.high)
        axes.annotate(f"p = {shuffled.p:.2g}", (right, y), xytext=(8, 0), textcoords="offset points", va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(told)), [name for name, _ in told])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(told) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.margins(x=0.12)
    axes.grid(axis="x", color="#e6e6e6")
    _plain(axes, x_label="NDCG@10")
    return figure


def _plain(axes: Axes, x_label: str, y_label: str = "") -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9a9a9a")
    axes.tick_params(colors=INK, labelsize=9.5)
    axes.set_xlabel(x_label, color=INK, fontsize=10.5)
    axes.set_ylabel(y_label, color=INK, fontsize=10.5)
    axes.set_axisbelow(True)


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names beside the ends of their lines, moved apart where they would lie on each other."""
    if not ends:
        return
    to_axes = (axes.transScale + axes.transLimits).transform
    places = sorted((float(to_axes((1.0, value))[1]), name, colour) for value, name, colour in ends)
    least, placed = 0.055, [places[0][0]]
    for y, _, _ in places[1:]:
        placed.append(max(y, placed[-1] + least))
    # What went over the top comes down again, and pushes those below it.
    over = max(0.0, placed[-1] - 1.0)
    placed = [y - over if y - over > at * least else max(0.0, min(y, placed[-1] - over)) for at, y in enumerate(placed)]
    for y, (_, name, colour) in zip(placed, places, strict=True):
        axes.annotate(
            name, (1, y), xycoords="axes fraction", xytext=(8, 0), textcoords="offset points", va="center", fontsize=9.5, color=colour
        )


def _count(counts: set[int]) -> str:
    least, most = min(counts), max(counts)
    return f"n = {least:,}" if least == most else f"n = {least:,}–{most:,}"
