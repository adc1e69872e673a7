"""Pictures that can be read: no text lies over another."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from model.evaluation import plots
from model.evaluation.compare import Evaluation, EvaluationOptions, Group, Ranking, evaluate
from model.evaluation.probes import Drift
from model.evaluation.significance import Estimate
from tests.model import tiny


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    version = tiny.add(tmp_path_factory.mktemp("registry"), "first", 0)
    rng = np.random.default_rng(7)
    log = pl.DataFrame(
        {
            "user_id": rng.integers(0, 100, 4_000),
            "item_id": [f"item-{i}" for i in rng.integers(1, 61, 4_000)],
            "timestamp": np.arange(4_000),
        }
    )
    return evaluate(log.lazy(), [version], EvaluationOptions(), log_name="clicks.csv", progress=lambda *_: None)


def _close(ranking: Ranking, name: str, spread: float) -> Ranking:
    """A ranking of another name, with values that differ by `spread` from those of the original."""

    def moved(estimate: Estimate) -> Estimate:
        return Estimate(estimate.value + spread, estimate.low + spread, estimate.high + spread)

    def groups(of_one: list[Group]) -> list[Group]:
        return [replace(group, targets=1_234_567, ndcg_at_10=moved(group.ndcg_at_10)) for group in of_one]

    return replace(
        ranking,
        name=name,
        hr={k: moved(each) for k, each in ranking.hr.items()},
        ndcg={k: moved(each) for k, each in ranking.ndcg.items()},
        by_history=groups(ranking.by_history),
        by_position=groups(ranking.by_position),
        by_folds=groups(ranking.by_folds),
    )


def _with_models(found: Evaluation, number: int, spread: float) -> Evaluation:
    """The evaluation of so many models with close values, and with the baselines."""
    names = [f"{'a-rather-long-name-of-a-model-' if at % 3 == 0 else 'model'}{at}@{at + 1}" for at in range(number)]
    first = found.subjects[0]
    probes = replace(first.probes, drift=[Drift(folds, 50, 0.1 * folds) for folds in (2, 3, 4, 6, 9, 14, 21)])
    subjects = [replace(first, reference=name, probes=probes) for name in names]
    modes = [
        replace(
            mode,
            rankings=[
                *(_close(mode.rankings[0], name, at * spread) for at, name in enumerate(names)),
                *(_close(each, each.name, number * spread) for each in mode.rankings[1:]),
            ],
        )
        for mode in found.modes
    ]
    return replace(found, subjects=subjects, modes=modes)


def _texts(figure: Figure) -> Iterator[tuple[str, tuple[float, float, float, float]]]:
    """Every text that is drawn, and its left, right, bottom and top in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    beyond = {id(label) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in _beyond(axis)}
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if id(text) not in beyond and text.get_visible() and text.get_text().strip():
            box = text.get_window_extent(canvas.get_renderer())
            if box.width and box.height:
                yield text.get_text(), (box.x0, box.x1, box.y0, box.y1)


def _beyond(axis: Axis) -> Iterator[Text]:
    """The labels of ticks outside of the axes, which are not drawn."""
    low, high = sorted(axis.get_view_interval())
    for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
        if not low <= tick.get_loc() <= high:
            yield from (tick.label1, tick.label2)


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    return [
        (one, other)
        for (one, (left, right, bottom, top)), (other, (left2, right2, bottom2, top2)) in combinations(
            _texts(figure), 2
        )
        if min(right, right2) - max(left, left2) > 0.5 and min(top, top2) - max(bottom, bottom2) > 0.5
    ]


@pytest.mark.parametrize("spread", [0.0, 1e-4, 0.02])
@pytest.mark.parametrize("number", [1, 2, 3, 5, 8, 12])
def test_no_text_of_any_picture_lies_over_another(
    found: Evaluation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, spread: float
) -> None:
    drawn: dict[str, Figure] = {}
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.update({path.name: figure}))
    plots.draw(_with_models(found, number, spread), tmp_path)
    assert {"accuracy.png", "history.png", "position.png", "folds.png", "shuffle.png", "drift.png"} == set(drawn)
    assert {name: overlapping(figure) for name, figure in drawn.items() if overlapping(figure)} == {}


def test_the_accuracy_says_which_dots_are_of_which_mode(
    found: Evaluation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: dict[str, Figure] = {}
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.update({path.name: figure}))
    plots.draw(found, tmp_path)
    texts = [text for text, _ in _texts(drawn["accuracy.png"])]
    assert [texts.count(word) for word in ("stream-mode", "README-mode", "HR@10", "NDCG@10")] == [1, 1, 1, 1]


def test_overlaps_are_found() -> None:
    figure = Figure()
    for at in (0.50, 0.51):
        figure.text(at, 0.5, "label")
    assert overlapping(figure) == [("label", "label")]
