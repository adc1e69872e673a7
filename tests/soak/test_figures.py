"""The figures of a soak, from notes that are written by hand."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from stream.fault_points import Point
from tests.crash.oracle import Verdict
from tests.soak import figures, report, worker
from tests.soak.run import Options, Outcome, Used
from tests.soak.worker import STEP, Note, Notes

MS = 1_000_000
S = 1_000 * MS
RIGHT = Verdict(10, 1, 2, 0, 0, 0, 2, 0, 0, 0, ())


def step(ended_ms: float, took_ms: float = 5.0) -> Note:
    return Note(STEP, round((ended_ms - took_ms) * MS), round(ended_ms * MS))


def outcome(*, slow_ms: float = 9.0, grows_mb: float = 0.0, load_mb: float = 0.0) -> Outcome:
    """A worker with a step every 10 ms for 30 s. Versions are promoted at 10 s and at 20 s, and serve 1 s and 2 s
    later; before the second does, nothing ends for 300 ms. Steps of 5 ms, in swaps of `slow_ms`.
    """
    steps = []
    for at in range(10, 30_000, 10):
        if 21_700 < at < 22_000:
            continue
        swapping = 10_000 <= at <= 12_000 or 20_000 <= at <= 23_000
        steps.append(step(at, slow_ms if swapping else 5.0))
    swapped = [Note(figures.SWAPPED, at * MS, at * MS) for at in (11_000, 22_000)]
    used = [Used(swap, "w0", 300 + grows_mb * swap, 20, 50) for swap in range(30)]
    unpromoted = [Used(beat, "w0", 330 + load_mb * beat, 20, 50) for beat in range(30)]
    return Outcome(
        Options(100, 10, 10, workers=1),
        promoted=[10 * S, 20 * S],
        formats=[False, True],
        notes={"w0": sorted([*steps, *swapped], key=lambda note: note.ended)},
        used=used,
        unpromoted=unpromoted,
        windows=[(0, 30 * S)],
        verdict=RIGHT,
    )


def grown(made: Outcome) -> list[figures.Growth]:
    """As after thirty promotions, for which there are no notes."""
    return list(figures.growth(replace(made, formats=[False] * 30)))


def test_a_swap_is_told_with_its_time_its_pause_and_its_slowest_step() -> None:
    one, two = figures.swaps_of(outcome())
    assert (one.number, one.other_format, one.served_s) == (0, False, 1.0)
    assert (one.pause_ms, one.slowest_ms) == (10.0, 9.0)
    assert (two.number, two.other_format, two.served_s) == (1, True, 2.0)
    assert (two.pause_ms, two.slowest_ms) == (300.0, 9.0)


def test_a_promotion_that_no_worker_served_is_told() -> None:
    made = outcome()
    made.notes["w0"] = [note for note in made.notes["w0"] if note.ended != 22_000 * MS or note.kind == STEP]
    one, two = figures.swaps_of(made)
    assert (one.served_s, two.served_s) == (1.0, None)
    phases = list(figures.phases(made, [one, two]))
    assert [claim for holds, claim in report.claims(made, phases, []) if not holds] == [
        "two memory formats in turn: each worker served each promotion: 0 of 1",
        # Nothing says when this swap ended, so all of the beat counts as the swap.
        *[claim for holds, claim in report.claims(made, phases, []) if not holds][1:],
    ]
    assert math.isnan(phases[1].served_p50_s)


def test_steps_in_swaps_are_compared_with_those_outside() -> None:
    made = outcome()
    within, between = figures.phases(made, figures.swaps_of(made))
    assert (within.name, within.promotions, within.swaps) == ("one memory format", 1, 1)
    assert within.during.steps == 201
    assert (within.during.p99_ms, within.outside.p99_ms, within.ratio) == (9.0, 5.0, 1.8)
    assert (within.longest_pause_ms, between.longest_pause_ms) == (10.0, 300.0)
    assert within.longest_pause_outside_ms == 10.0
    assert sum(phase.during.steps for phase in (within, between)) + within.outside.steps == 2999 - 29


@pytest.mark.parametrize(
    ("changed", "failing"),
    [
        ({}, []),
        ({"slow_ms": 11.0}, ["one memory format: p99", "two memory formats in turn: p99"]),
        ({"grows_mb": 0.5}, ["one memory format: 100 promotions add +50.0 to RSS, MB of w0"]),
        ({"grows_mb": 0.5, "load_mb": 0.3}, ["one memory format: 100 promotions add +20.0 to RSS, MB of w0"]),
        ({"grows_mb": 0.5, "load_mb": 0.45}, []),
    ],
)
def test_claims_fail_where_swaps_are_slow_or_memory_grows(changed: dict[str, float], failing: list[str]) -> None:
    made = outcome(**changed)
    swaps = figures.swaps_of(made)
    claims = report.claims(made, list(figures.phases(made, swaps)), grown(made))
    found = [claim for holds, claim in claims if not holds]
    assert len(found) == len(failing)
    assert all(claim.startswith(begin) for claim, begin in zip(found, failing, strict=True))


def test_what_a_worker_notes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "steps"
    at = Notes(path)
    for point in (Point.POLLED, Point.COMPUTED, Point.WRITTEN, Point.MODEL_SWAPPED, Point.WRITTEN):
        at(point)
    step, swapped, passed = worker.read(path)
    assert (step.kind, swapped.kind, passed.kind) == (STEP, figures.SWAPPED, STEP)
    assert step.began <= step.ended <= swapped.ended <= passed.ended
    assert passed.began == passed.ended, "a step without a poll is none of records"


def test_the_report_has_every_figure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    made = outcome()
    swaps = figures.swaps_of(made)
    phases, growth = list(figures.phases(made, swaps)), grown(made)
    text = "\n".join(report.tables(made, phases, growth))
    assert "| p99 of steps in swaps | 9.0 ms | 9.0 ms |" in text
    assert "| one memory format | w0 | RSS, MB | 300 | 300 | 300 | +0.0 |" in text
    assert "| no promotions | w0 | RSS, MB | 330 | 330 | 330 | +0.0 |" in text
    report.plot(tmp_path / "soak.svg", made, swaps, phases)
    assert (tmp_path / "soak.svg").stat().st_size < 200_000
    assert figures.as_json(made, swaps)["oracle"]["interactions"] == 10
