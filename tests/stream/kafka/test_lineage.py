"""What is said beside a committed offset, and which changelogs it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import ChangelogUnfit
from stream.kafka import lineage
from stream.kafka.lineage import Changelog, Lineage

SAID = Lineage("AaH/mvk6e3C8Oorv54+T0g", 4, 1_000)
FITS = Changelog("AaH/mvk6e3C8Oorv54+T0g", 4, 0, 1_000)


@given(st.text("abcABC019+/=_-"), st.integers(0, 1 << 40), st.integers(0, 1 << 62))
def test_what_is_said_is_read_back(changelog: str, partitions: int, reached: int) -> None:
    said = Lineage(changelog, partitions, reached)
    assert lineage.read(said.text()) == said


@pytest.mark.parametrize(
    "text", [None, "", "committed by hand", "rec2pm/1", "rec2pm/1 four 9 x", "rec2pm/2 4 9 x", "rec2pm/1 4 9"]
)
def test_what_another_program_says_there_is_nothing_to_us(text: str | None) -> None:
    assert lineage.read(text) is None


def test_the_changelog_of_before_fits_and_so_does_a_longer_one() -> None:
    lineage.check("app.changelog[3]", SAID, FITS)
    lineage.check("app.changelog[3]", SAID, Changelog(FITS.id, 4, 0, 1_001))


def test_without_a_word_any_changelog_fits() -> None:
    lineage.check("app.changelog[3]", None, Changelog("other", 9, 0, 0))


def test_a_broker_that_knows_no_ids_is_believed() -> None:
    lineage.check("app.changelog[3]", SAID, Changelog("", 4, 0, 1_000))
    lineage.check("app.changelog[3]", Lineage("", 4, 1_000), FITS)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            Changelog("other", 4, 0, 1_000),
            "app.changelog[3] is another topic (id other) than the one that holds the state",
        ),
        (
            Changelog(FITS.id, 8, 0, 1_000),
            "the input has 8 partitions and had 4 when the state in app.changelog[3] was made",
        ),
        (Changelog(FITS.id, 4, 0, 999), "app.changelog[3] ends at 999, but it reached 1000"),
    ],
)
def test_a_changelog_that_does_not_hold_the_state_is_refused_and_told_what_to_do(found: Changelog, said: str) -> None:
    with pytest.raises(ChangelogUnfit) as refused:
        lineage.check("app.changelog[3]", SAID, found)
    assert said in str(refused.value)
    assert "kafka-consumer-groups.sh --reset-offsets --to-current --execute" in str(refused.value)
