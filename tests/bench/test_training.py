"""What bench.training measures: that both sides are given the same to learn, and that ours is trained whole."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bench import our_training, training
from tests.model.quick import LOG


def _given(folder: Path, users: int) -> tuple[int, pl.LazyFrame]:
    n_items = training.prepared(LOG, users, folder)
    columns = {"user_id": "user", "item_id": "item", "timestamp": "time"}
    return n_items, pl.LazyFrame({column: np.load(folder / f"{name}.npy") for column, name in columns.items()})


@pytest.mark.parametrize("kind", ["trunc", "tok-serial-o"])
def test_every_user_drawn_is_learned_from_once_an_epoch(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "WINDOW", 20)
    n_items, log = _given(tmp_path, 30)
    _, settings = training.ours(kind, training.LOSSES["catalogue"], n_items, epochs=2, devices=1)
    network = settings["network"] | {"d": 8, "heads": 2, "segment_length": 5, "segments": 4}
    found = our_training.measure(log, network, settings["training"], devices=1)
    counts = log.collect().group_by("user_id").len()["len"]
    assert counts.max() == 21
    assert (found["windows"], found["targets"]) == (30, (counts - 1).sum())
    assert len(found["seconds"]) == 2
    assert min(found["seconds"]) > 0


def test_ratios_are_of_the_same_round() -> None:
    def one(program: str, turn: int, seconds: float) -> training.Measured:
        return training.Measured(program, "position", turn, seconds, 100, 1_000, 7, {})

    # The machine was ten times slower in the second round.
    runs = [one(training.RECTOOLS, 0, 4.0), one("full", 0, 2.0), one("full", 1, 20.0), one(training.RECTOOLS, 1, 40.0)]
    rows = training.table(runs, "position")[2:]
    assert [row.split("|")[1].strip() for row in rows] == [training.RECTOOLS, "full"]
    assert [row.split("|")[-2].strip() for row in rows] == ["1.00", "2.00"]
