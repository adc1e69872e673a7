"""Logs that hardly anything can be learned from: an answer, or an advice that works."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import TrainingImpossible
from model.training import recipe as recipes
from model.training.checkpoint import TrainingFolder
from model.training.prepared import Prepared, prepare
from model.training.recipe import Recipe
from tests.model.quick import run

USUAL = recipes.load(recipes.DEFAULT)
Rows = list[tuple[int, int, int]]


def _log(rows: Rows) -> pl.DataFrame:
    return pl.DataFrame(
        [(f"u{user}", f"i{item}", 10**12 + second * 1000) for user, item, second in rows],
        schema=["user_id", "item_id", "timestamp"],
        orient="row",
    )


def _prepared(log: pl.DataFrame, wanted: Recipe) -> Prepared:
    with TemporaryDirectory() as folder:
        return prepare(log.lazy(), wanted, TrainingFolder(Path(folder)), start_from=None, attribute_column=None)


def _advised(error: TrainingImpossible) -> list[str]:
    return re.findall(r"--set ([^\s,]+)", str(error))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=30),
    split=st.sampled_from(("time", "last-out")),
    validation_share=st.sampled_from((0.1, 0.5, 0.9)),
    until_share=st.sampled_from((1.0, 0.3)),
)
def test_any_small_log_is_prepared_or_refused_with_an_advice_that_works(
    rows: Rows, split: str, validation_share: float, until_share: float
) -> None:
    wanted = recipes.changed(
        USUAL,
        ["d=8", f"split={split}", f"validation_share={validation_share}", f"until_share={until_share}"],
    )
    log = _log(rows)
    try:
        found = _prepared(log, wanted)
    except TrainingImpossible as error:
        if "No other recipe that was tried helps" in str(error):
            return
        found = _prepared(log, recipes.changed(wanted, _advised(error)))
    assert len(found.targets.user) > 0
    assert len(found.data.item_ids) >= 2
    assert found.data.trained.max() >= 2


SMALL_LOGS: dict[str, Rows] = {
    "five rows": [(1, 1, 0), (1, 2, 1), (2, 1, 2), (2, 3, 3), (1, 3, 4)],
    "two users who meet at the end": [*((1, i % 5, i) for i in range(95)), *((2, i % 5, i) for i in range(95, 100))],
    "everybody has four": [(i // 4, i % 7, i) for i in range(200)],
    "rare items": [(i % 9, i, i) for i in range(300)],
    "new users at the end": [(i % 9 if i < 270 else i, i % 7, i) for i in range(300)],
    "doubled": [(i // 2 % 9, i // 2 % 7, i // 2) for i in range(400)],
    "one time": [(i % 9, i % 7, 0) for i in range(300)],
}


@pytest.mark.parametrize("name", SMALL_LOGS)
def test_a_small_log_trains_with_what_is_advised(tmp_path: Path, name: str) -> None:
    log = _log(SMALL_LOGS[name])
    changed: dict[str, object] = {"segment_length": 50, "max_epochs": 1}
    try:
        version = run(tmp_path, log, **changed)
    except TrainingImpossible as error:
        advised = dict(setting.split("=") for setting in _advised(error))
        version = run(tmp_path, log, **(changed | advised))
    assert version.reference == "small@1"


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([(1, 1, 1)], "1 of the 1 interactions of the log is left to learn from"),
        ([(1, i, i) for i in range(300)], "the log has one user"),
        ([(i % 9, 1, i) for i in range(300)], "the training part has 1 items"),
        ([(i, i % 9, i) for i in range(300)], "no user has two interactions before validation"),
    ],
)
def test_a_log_no_recipe_can_learn_from_gets_no_advice_that_fails(rows: Rows, reason: str) -> None:
    with pytest.raises(TrainingImpossible, match=reason) as refused:
        _prepared(_log(rows), USUAL)
    assert "No other recipe that was tried helps" in str(refused.value)
    assert not _advised(refused.value)
