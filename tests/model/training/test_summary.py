"""What training says before it starts and after it has ended."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from model.training import validation
from model.training.summary import worse_than_popularity
from model.version.manifest import Metrics
from tests.model.quick import LOG, run


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[int], list[str]]:
    caplog.set_level(logging.INFO)
    return lambda level: [record.getMessage() for record in caplog.records if record.levelno >= level]


def _metrics(**changed: Any) -> Metrics:
    usual = {
        "targets": 900,
        "hr_at_10": 0.2,
        "ndcg_at_10": 0.1,
        "popularity_hr_at_10": 0.1,
        "popularity_ndcg_at_10": 0.05,
    }
    return Metrics(**(usual | changed))


@pytest.mark.parametrize(
    ("changed", "ended", "why"),
    [
        ({"patience": 2}, "patience", "because NDCG@10 was not better in the 2 epochs after it (patience)"),
        ({"max_epochs": 1}, "max_epochs", "because 1 epoch had passed (max_epochs)"),
        ({"max_seconds": 5, "patience": 99, "max_epochs": 99}, "max_seconds", "because 5 s had passed (max_seconds)"),
    ],
)
def test_it_says_why_training_ended_and_what_came_out_in_words(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[[int], list[str]],
    changed: dict[str, Any],
    ended: str,
    why: str,
) -> None:
    monkeypatch.setattr(validation, "evaluate", lambda *_: _metrics())
    training = run(tmp_path, **{"max_epochs": 9, "clock_step": 0.05, **changed}).manifest().training
    assert training is not None
    assert training.ended == ended
    lines = said(logging.INFO)
    assert any(line.endswith(why) and "has the weights of epoch 0" in line for line in lines), lines
    assert (
        "on 900 interactions of the validation part: HR@10 0.2000 (popular items: 0.1000), NDCG@10 0.1000 (popular items: 0.0500)"
        in lines
    )
    assert not [line for line in lines if "Metrics(" in line]
    assert not [line for line in said(logging.WARNING) if "worse" in line]


@pytest.mark.parametrize(
    ("changed", "worse"),
    [
        ({}, False),
        ({"hr_at_10": 0.1, "ndcg_at_10": 0.05}, False),
        ({"hr_at_10": 0.09}, True),
        ({"ndcg_at_10": 0.04}, True),
        ({"ndcg_at_10": 0.04, "popularity_ndcg_at_10": None}, False),
    ],
)
def test_worse_by_one_metric_is_worse(changed: dict[str, Any], worse: bool) -> None:
    assert worse_than_popularity(_metrics(**changed)) == worse


@pytest.mark.parametrize(
    ("changed", "how", "advice"),
    [
        ({}, {}, "max_epochs ended it while it may still have got better"),
        ({"targets": 20}, {}, "With 20 targets that may be chance"),
        ({}, {"patience": 2, "max_epochs": 50}, "No epoch was better than the weights before the first step"),
    ],
)
def test_a_model_worse_than_popular_items_is_called_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[[int], list[str]],
    changed: dict[str, Any],
    how: dict[str, Any],
    advice: str,
) -> None:
    monkeypatch.setattr(validation, "evaluate", lambda *_: _metrics(hr_at_10=0.05, ndcg_at_10=0.02, **changed))
    run(tmp_path, **how)
    (warning,) = [line for line in said(logging.WARNING) if "worse" in line]
    assert (
        "small@1 is worse than the list of popular items, HR@10 0.0500 against 0.1000, NDCG@10 0.0200 against 0.0500"
        in warning
    )
    assert advice in warning


def test_another_segment_length_than_the_newest_version_has_is_said(
    tmp_path: Path, said: Callable[[int], list[str]]
) -> None:
    run(tmp_path, max_epochs=1)
    run(tmp_path, max_epochs=1, seed=1)
    assert not [line for line in said(logging.WARNING) if "segment_length" in line]
    run(tmp_path, max_epochs=1, segment_length=5)
    (warning,) = [line for line in said(logging.WARNING) if "segment_length" in line]
    assert warning.startswith(
        "small@2 has segment_length=10 and this training has 5: workers with stored state will refuse"
    )
    assert warning.endswith("--set segment_length=10")
    (tmp_path / "small" / "3" / "manifest.json").write_text("{}")
    run(tmp_path, max_epochs=1, segment_length=7)
    assert [line.split(":")[0] for line in said(logging.WARNING) if "segment_length" in line] == [
        "small@2 has segment_length=10 and this training has 5",
        "small@2 has segment_length=10 and this training has 7",
    ], "a version whose manifest cannot be read is passed over"


def test_targets_that_no_list_can_have_are_counted(tmp_path: Path, said: Callable[[int], list[str]]) -> None:
    cut = len(LOG) - round(len(LOG) * 0.1)
    new = LOG.with_row_index().with_columns(
        item_id=pl.when(pl.col("index") < cut)
        .then("item_id")
        .otherwise(pl.lit("new-") + pl.col("index").cast(pl.String))
    )
    run(tmp_path, new.drop("index"), max_epochs=1)
    (outside,) = [line for line in said(logging.WARNING) if "catalogue lacks" in line]
    assert "(100 %) are items that the catalogue lacks, so no list can have them" in outside
    pair = pl.DataFrame({"user_id": [f"u{i % 9}" for i in range(400)], "item_id": [i // 9 % 2 for i in range(400)]})
    run(tmp_path, pair.with_columns(timestamp=pl.int_range(400) + 10**12), max_epochs=1, min_item_count=1)
    (repeated,) = [line for line in said(logging.WARNING) if "had before" in line]
    assert "40 of 40 validation targets (100 %)" in repeated


def test_a_training_without_a_window_says_that_nothing_was_learned(
    tmp_path: Path, said: Callable[[int], list[str]]
) -> None:
    training = run(tmp_path, max_seconds=1, clock_step=5.0).manifest().training
    assert training is not None
    assert training.samples == 0
    assert [line for line in said(logging.WARNING) if "has learned nothing" in line]
