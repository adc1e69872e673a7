"""What is shown while a model is trained."""

import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.training import progress
from model.training.checkpoint import Epoch
from model.training.progress import Clock, Lines, Reporter, Terminal, left
from model.training.recipe import TrainingOptions
from model.version.manifest import Metrics
from tests.model.quick import run


def _epoch(number: int, ndcg: float, loss: float = 5.0) -> Epoch:
    metrics = Metrics(targets=9, hr_at_10=0.1, ndcg_at_10=ndcg, popularity_hr_at_10=0.1)
    return Epoch(number, loss if number else None, 0.0 if number else None, metrics)


@given(
    number=st.integers(1, 1_000),
    share=st.floats(0.001, 1.0),
    loss=st.floats(0, 999),
    elapsed_s=st.floats(1, 3.5e6),
    options=st.builds(
        TrainingOptions,
        max_epochs=st.integers(1, 1_000),
        patience=st.integers(1, 1_000),
        max_seconds=st.none() | st.floats(1, 3.5e6),
    ),
)
def test_the_line_of_a_terminal_fits_80_columns_uncut(
    number: int, share: float, loss: float, elapsed_s: float, options: TrainingOptions
) -> None:
    screen = io.StringIO()
    reporter = Reporter(Terminal(screen, columns=1_000), None, 0, options)
    reporter.epoch(_epoch(0, 0.0123), _epoch(0, 0.0123), 0, 0.0)
    reporter.step(1, {}, elapsed_s, number - 1 + share, loss)
    reporter.epoch(_epoch(number, 0.0123, loss), _epoch(number, 0.0123), 0, elapsed_s)
    lines = screen.getvalue().split("\r\x1b[2K")[1:]
    assert len(lines) == 3
    assert max(map(len, lines)) < 80, lines


def test_a_terminal_has_one_line_and_nothing_of_it_stays() -> None:
    screen = io.StringIO()
    terminal = Terminal(screen, columns=20)
    for line in ("short", "as long as two terminals are wide"):
        terminal.within(line)
    terminal.close()
    written = screen.getvalue()
    assert "\n" not in written
    assert [len(part) for part in written.split("\r\x1b[2K")] == [0, 5, 19, 0]


def test_a_file_gets_a_line_an_epoch_and_one_in_half_a_minute() -> None:
    file = io.StringIO()
    reporter = Reporter(Lines(file), None, 0, TrainingOptions(max_epochs=3))
    reporter.epoch(_epoch(0, 0.01), _epoch(0, 0.01), 0, 1.0)
    for second in range(100):
        reporter.step(second, {}, 1.0 + second, second / 100, 4.0)
    reporter.epoch(_epoch(1, 0.02), _epoch(1, 0.02), 100, 101.0)
    reporter.close()
    lines = file.getvalue().splitlines()
    assert "\r" not in file.getvalue()
    assert [line.split("  ")[0] for line in lines] == [
        "before epoch 1",
        "epoch 1 30%",
        "epoch 1 60%",
        "epoch 1 90%",
        "epoch 1",
    ]
    assert lines[-1] == "epoch 1  loss 5.000  NDCG@10 0.0200, best 0.0200  3 min left"


@pytest.mark.parametrize(
    ("changed", "best", "expected"),
    [
        ({}, 0, (80.0, 980.0)),  # 8 epochs of patience are left, and 98 until max_epochs
        ({}, 2, (100.0, 980.0)),
        ({"max_epochs": 5}, 2, (30.0, 30.0)),
        ({"max_seconds": 60.0}, 2, (39.0, 39.0)),
        ({"max_seconds": 500.0}, 2, (100.0, 479.0)),
    ],
)
def test_time_left_is_bounded_by_what_ends_training(
    changed: dict[str, float], best: int, expected: tuple[float, float]
) -> None:
    """Two epochs of ten seconds each are done, after a second of validation."""
    clock = Clock(TrainingOptions(**{"max_epochs": 100, "patience": 10, **changed}))  # type: ignore[arg-type]
    assert clock.left_s(1.0, 0, 0) == (None if "max_seconds" not in changed else (0.0, changed["max_seconds"] - 1))
    assert clock.left_s(21.0, 2, best) == pytest.approx(expected)


def test_a_resumed_training_measures_its_own_epochs() -> None:
    clock = Clock(TrainingOptions(max_epochs=10, patience=10))
    clock.left_s(5_000.0, 5, 5)
    assert clock.left_s(5_010.0, 6, 6) == pytest.approx((40.0, 40.0))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "time left not known yet"),
        ((80.0, 980.0), "80 s to 16 min left"),
        ((30.0, 30.2), "30 s left"),
        ((0.0, 36_000.0), "0 s to 10 h left"),
        ((432_000.0, 4e7), "5 to > 99 d left"),
    ],
)
def test_time_left_is_said_in_words(seconds: tuple[float, float] | None, words: str) -> None:
    assert left(seconds) == words


@pytest.mark.parametrize(
    ("every_s", "lines"), [(0.0, ["before epoch 1", "epoch 1", "epoch 2"]), (3600.0, ["before epoch 1"])]
)
def test_a_training_shows_its_epochs_but_not_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_s: float, lines: list[str]
) -> None:
    monkeypatch.setattr(progress.Lines, "epochs_s", every_s)
    file = io.StringIO()
    monkeypatch.setattr(progress.sys, "stderr", file)
    run(tmp_path, how={"progress": progress.on_stderr})
    shown = [line for line in file.getvalue().splitlines() if "NDCG@10" in line]
    assert [re.split(r"  ", line)[0] for line in shown] == lines
    assert len(lines) == 1 or shown[-1].endswith("0 s left")
