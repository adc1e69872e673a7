"""Models trained on the way know nothing of the future, and a replay that goes on does not train them again."""

from pathlib import Path

import pytest

from model.errors import LogUnreadable
from model.training import recipe as recipes
from model.version.registry import Registry
from stream.replay.retrained import interval_ms, retrained
from tests.model.quick import LOG, SMALL

RECIPE = recipes.changed(recipes.load(recipes.DEFAULT), (*SMALL, "max_epochs=1"))
TIMES = LOG["timestamp"].sort()


@pytest.mark.parametrize(("text", "ms"), [("12h", 43_200_000), ("7d", 604_800_000), ("2w", 1_209_600_000)])
def test_intervals(text: str, ms: int) -> None:
    assert interval_ms(text) == ms


@pytest.mark.parametrize("text", ["", "0d", "7", "d", "1.5d", "-1d", "7D", "1m"])
def test_what_is_no_interval(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number of hours, days or weeks"):
        interval_ms(text)


def test_each_version_is_trained_on_its_past_and_serves_from_then_on(tmp_path: Path) -> None:
    begin = int(TIMES[len(TIMES) // 2])
    span_h = max(1, int(TIMES[-1] - begin) // 3_600_000 // 2)

    def once() -> list[tuple[str, int]]:
        made = retrained(
            LOG.lazy(),
            f"{span_h}h",
            begin,
            RECIPE,
            tmp_path,
            warm=True,
            clock=iter(range(10**9)).__next__,
            progress=None,
        )
        for turn, next_turn in zip(made.turns, [*made.turns[1:], None], strict=True):
            training = turn.version.manifest().training
            assert training is not None
            moment = int(training.log.removeprefix("until-"))
            assert training.until_ms < moment
            assert turn.from_ms in (0, moment)
            assert next_turn is None or next_turn.from_ms > moment
        return [(turn.version.digest(), turn.from_ms) for turn in made.turns]

    first = once()
    assert len(first) >= 2
    assert first[0][1] == 0
    assert once() == first
    assert len(Registry(tmp_path).versions(f"every-{span_h}h")) == len(first)


@pytest.mark.parametrize("begin", [int(TIMES[0]), int(TIMES[-1]) + 1])
def test_the_first_training_needs_a_past_and_a_future(tmp_path: Path, begin: int) -> None:
    with pytest.raises(LogUnreadable, match="before and after the first training"):
        retrained(LOG.lazy(), "1d", begin, RECIPE, tmp_path, warm=False, clock=lambda: 0.0, progress=None)
