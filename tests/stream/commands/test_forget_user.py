"""What `rec2pm user forget` concludes from the changelog, and what it prints."""

import pytest

from stream.commands.forget_user import (
    Application,
    Found,
    InChangelog,
    Outcome,
    UserRecords,
    found_lines,
    outcome,
    outcome_line,
    preview_lines,
    sent_line,
)
from stream.keys import KeyFormat

SHOP = Application({}, "shop", "in", "out", "shop.changelog", KeyFormat(), "murmur2")


def stored(partition: int, first_offset: int) -> UserRecords:
    return UserRecords(partition, records=4, first_offset=first_offset, interactions=10, folds=3, kept_segments=2)


BEFORE = InChangelog([stored(0, 5)], {0: 100, 1: 7})


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([], Outcome.FORGOTTEN),
        ([stored(0, 100)], Outcome.ACTIVE_AGAIN),
        ([stored(0, 99)], Outcome.RECORDS_LEFT),
        ([stored(0, 120), stored(1, 6)], Outcome.RECORDS_LEFT),
    ],
)
def test_a_user_is_forgotten_when_no_record_from_before_the_null_value_is_left(
    after: list[UserRecords], expected: Outcome
) -> None:
    assert outcome(BEFORE, InChangelog(after, {0: 130, 1: 9})) is expected


def test_a_preview_says_what_is_stored_and_where_the_null_value_would_go() -> None:
    found = Found(BEFORE, list_partition=1, send_to=[0, 1])
    assert found_lines(SHOP, "ann", found) == [
        "shop.changelog[0]: 10 interactions remembered, 3 segments folded, 2 of them kept (4 changelog records)",
        "out[1]: holds a list for the user",
    ]
    assert preview_lines(SHOP, found) == [
        "would send a null value to in[0], in[1]",
        "nothing was sent: add --execute to send",
    ]


def test_of_an_unknown_user_it_says_so() -> None:
    assert found_lines(SHOP, "ann", Found(InChangelog([], {0: 1}), None, [0])) == [
        "nothing is remembered about user 'ann'"
    ]


def test_offsets_are_shown_in_the_order_of_partitions() -> None:
    assert sent_line(SHOP, {1: 8, 0: 20}) == "sent a null value to in[0]@20, in[1]@8"


def test_every_outcome_has_a_line_that_begins_with_whether_the_user_is_forgotten() -> None:
    lines = {each: outcome_line(SHOP, each, 60.0) for each in Outcome}
    assert [each for each in Outcome if lines[each].startswith("forgotten")] == [
        Outcome.FORGOTTEN,
        Outcome.ACTIVE_AGAIN,
    ]
    assert "within 60 s" in lines[Outcome.NOT_YET]
    assert "shop.changelog" in lines[Outcome.RECORDS_LEFT]
