"""Where an export begins and ends, as it is typed."""

import pytest

from stream.interactions.window import Window, bound, offsets_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:5", {0: 5}),
        ("0:5,12:0", {0: 5, 12: 0}),
        ("1:7, 0:3", {0: 3, 1: 7}),
        ("2024-01-01", 1_704_067_200_000),
        ("2024-01-01T00:00:00.5+01:00", 1_704_063_600_500),
    ],
)
def test_a_bound_is_offsets_or_a_time(text: str, expected: object) -> None:
    assert bound(text) == expected


@pytest.mark.parametrize("text", ["", "5", "1704067200", "0:", "0:5,0:6", "0:5,", "0:-5", "0:٣", "yesterday", "1-2"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a time in ISO 8601, or PARTITION:OFFSET"):
        bound(text)


def test_a_window_says_what_it_is() -> None:
    assert Window().words() == "from the beginning until the end"
    assert Window({1: 5, 0: 2}, 7).words() == "from 0:2,1:5 until 7 ms"
    assert offsets_of("7") is None
