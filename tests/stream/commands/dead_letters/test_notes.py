"""Which letters were sent in again survives being kept as an offset with metadata; too long, it forgets no letter that
was sent.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.commands.dead_letters.notes import Replayed, decoded, encoded, replayed_of
from stream.errors import KafkaUnusable

happened = st.dictionaries(st.integers(0, 2_000), st.booleans(), max_size=120)
"""The offset of each letter, and whether it was sent in again."""


@given(happened)
def test_what_was_sent_is_known_again_for_every_letter(letters: dict[int, bool]) -> None:
    sent = {offset for offset, again in letters.items() if again}
    position, metadata = encoded(replayed_of(sorted(letters), sent))
    known = decoded(position, metadata)
    assert {offset for offset in letters if offset in known} == sent
    assert position == max(sent, default=-1) + 1
    assert position not in known


@given(happened, st.integers(4, 60))
def test_what_does_not_fit_counts_as_sent_and_never_the_other_way_round(letters: dict[int, bool], limit: int) -> None:
    sent = {offset for offset, again in letters.items() if again}
    position, metadata = encoded(replayed_of(sorted(letters), sent), limit)
    known = decoded(position, metadata)
    assert len(metadata) <= limit
    assert sent <= {offset for offset in letters if offset in known}
    assert position not in known


@given(happened, st.sets(st.integers(0, 2_000)))
def test_sending_more_adds_to_what_is_known(letters: dict[int, bool], more: set[int]) -> None:
    offsets = sorted(letters)
    before = replayed_of(offsets, {offset for offset, again in letters.items() if again})
    after = replayed_of(offsets, {offset for offset in offsets if offset in before or offset in more})
    assert all((offset in after) == (offset in before or offset in more) for offset in offsets)


def test_five_hundred_letters_that_were_passed_over_one_by_one_fit() -> None:
    offsets = range(0, 10_000_000, 9_999)
    known = decoded(*encoded(replayed_of(offsets, {offset for offset in offsets if offset % 2})))
    assert [offset for offset in offsets if offset in known] == [offset for offset in offsets if offset % 2]


@pytest.mark.parametrize("metadata", [None, ""])
def test_an_offset_without_metadata_says_that_everything_below_it_was_sent(metadata: str | None) -> None:
    assert decoded(7, metadata) == Replayed(((0, 7),))
    assert decoded(0, metadata) == Replayed()


@pytest.mark.parametrize("metadata", ["r2:1", "r1:x", "NULL"])
def test_metadata_of_a_newer_build_is_an_error(metadata: str) -> None:
    with pytest.raises(KafkaUnusable, match="newer rec2pm"):
        decoded(7, metadata)
