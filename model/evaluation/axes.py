"""How pictures of evaluations look: colours, plain axes, intervals, and names at the ends of lines.

The extra `evaluate` installs matplotlib and scipy.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from scipy.optimize import isotonic_regression

from model.evaluation.significance import Estimate

COLOURS = ("#1f6fb4", "#d1495b", "#2a9d6f", "#e08e1b", "#7b4fb5", "#14919b", "#b3407f", "#7a6a1d", "#6b3419")
GREYS = ("#9a9a9a", "#5c5c5c")
INK = "#2b2b2b"
AXIS = "#9a9a9a"
GRID = "#e6e6e6"
LABEL_DISTANCE = 0.055
"""Between names at the ends of lines, as a share of the height of a picture."""


def dot(axes: Axes, estimate: Estimate, y: float, colour: str, *, filled: bool) -> None:
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


def plain(axes: Axes, x_label: str, y_label: str = "") -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(AXIS)
    axes.tick_params(colors=INK, labelsize=9.5)
    axes.set_xlabel(x_label, color=INK, fontsize=10.5)
    axes.set_ylabel(y_label, color=INK, fontsize=10.5)
    axes.set_axisbelow(True)


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], distance: float = LABEL_DISTANCE) -> None:
    """Names beside the ends of their lines, moved apart where they would overlap: at least `distance` of the height."""
    if not ends:
        return
    to_axes = (axes.transScale + axes.transLimits).transform
    ends_by_height = sorted((float(to_axes((1.0, value))[1]), name, colour) for value, name, colour in ends)
    # Least squares with a least distance: each label is as near to the end of its line as the others allow.
    steps = np.arange(len(ends_by_height)) * distance
    placed = isotonic_regression(np.array([y for y, _, _ in ends_by_height]) - steps).x + steps
    placed += max(0.0, -placed[0])
    placed -= max(0.0, placed[-1] - 1.0)
    for y, (_, name, colour) in zip(placed, ends_by_height, strict=True):
        axes.annotate(
            name,
            (1, y),
            xycoords="axes fraction",
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            color=colour,
        )
