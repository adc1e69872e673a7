"""Pictures of a replay can be read: no text lies over another, whatever the number of models and their names."""

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from model.evaluation.replay import files, pictures, report
from model.evaluation.replay.found import Found
from tests.model.evaluation.replay import made
from tests.model.evaluation.replay.made import Model
from tests.model.evaluation.test_plots import overlapping


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    out = tmp_path_factory.mktemp("replay")
    made.folder(out, made.log(), [Model("rec2pm-o@12")])
    replay = files.opened(out, ["rec2pm-o@12"], "timeline")
    return report.figures(replay, "timeline", (), {}, 0, out / "per_user.parquet")


def _with_models(found: Found, number: int, spread: float) -> Found:
    """The same with so many models, whose figures differ by `spread`."""
    first, simple = found.rankings[0], found.rankings[1:]
    models = []
    for at in range(number):
        name = f"{'a-rather-long-name-' if at % 3 == 0 else 'model'}{at}@{at + 1}"
        of = first.accuracy.ndcg_at_10
        moved = replace(of, value=of.value + at * spread, low=of.low + at * spread, high=of.high + at * spread)
        assert first.cost is not None
        cost = replace(first.cost, ms_per_list=0.07 * 3.0**at, bytes_per_user=900.0 + 300 * at)
        by = {
            division: [
                replace(part, ndcg_at_10=part.ndcg_at_10 + at * spread, interactions=1_234_567) for part in parts
            ]
            for division, parts in first.by.items()
        }
        models.append(replace(first, name=name, accuracy=replace(first.accuracy, ndcg_at_10=moved), cost=cost, by=by))
    return replace(found, rankings=[*models, *simple])


@pytest.mark.parametrize(("number", "spread"), [(1, 0.0), (4, 0.02), (8, 0.0)])
def test_no_text_lies_over_another(found: Found, monkeypatch: pytest.MonkeyPatch, number: int, spread: float) -> None:
    drawn: dict[str, Figure] = {}

    def keep(name: str, figure: Figure) -> str:
        drawn[name] = figure
        return ""

    monkeypatch.setattr(pictures, "_svg", keep)
    shown = pictures.draw(_with_models(found, number, spread))
    assert set(shown) == {"accuracy", "time", "cost", "history", "folds", "since_fold", "popularity", "age", "hour"}
    assert {name: overlapping(figure) for name, figure in drawn.items() if overlapping(figure)} == {}


def test_without_costs_there_is_no_picture_of_them(found: Found) -> None:
    shown = pictures.draw(replace(found, rankings=[replace(each, cost=None) for each in found.rankings]))
    assert "cost" not in shown


@pytest.mark.parametrize(
    ("ms", "words"),
    [(3_600_000, "1 hour"), (21_600_000, "6 hours"), (86_400_000, "1 day"), (31_536_000_000, "365 days")],
)
def test_a_width_is_said_in_hours_or_days(ms: int, words: str) -> None:
    assert pictures.width(ms) == words


def test_the_same_figures_have_the_same_picture(found: Found, tmp_path: Path) -> None:
    assert pictures.draw(found)["history"] == pictures.draw(found)["history"]
