"""What is an id, and what is not."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ids import DECIMAL, HIGHEST, LOWEST, MAX_ID_BYTES, Id, checked
from state.interaction import MAX_ID_BYTES as STORED_ID_BYTES
from state.interaction import item_key


@pytest.mark.parametrize("value", ["a", "007", "é" * 127, "x" * 255, " ", "7.0", "true", 0, -1, LOWEST, HIGHEST])
def test_an_id_is_returned_as_it_is(value: Id) -> None:
    found = checked(value)

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "is empty"),
        ("x" * 256, "has 256 bytes, expected at most 255"),
        ("é" * 128, "has 256 bytes, expected at most 255"),
        ("a\ud800", "a lone surrogate"),
        (LOWEST - 1, "64 bits"),
        (HIGHEST + 1, "is an integer of 65 bits"),
        (10**21, "is an integer of 70 bits"),
        (True, "is true or false"),
        (7.0, "is a float"),
        (None, "is null"),
        ({"id": 7}, "is a map"),
        ([7], "is a list"),
        (b"7", "is binary"),
    ],
)
def test_what_is_not_an_id_is_refused_with_what_was_found(value: object, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        checked(value)


@given(st.integers(LOWEST, HIGHEST))
def test_an_integer_and_its_text_are_the_same_item(number: int) -> None:
    assert re.match(DECIMAL, str(number))
    assert item_key(number) == item_key(str(number))


@given(st.from_regex(r"\A[-+]?0+[0-9]{1,9}\Z").filter(lambda text: text != str(int(text))))
def test_text_with_leading_zeros_is_another_item_than_its_number(text: str) -> None:
    assert not re.match(DECIMAL, text)
    assert item_key(text) != item_key(int(text))


def test_the_state_has_room_for_the_longest_id() -> None:
    assert MAX_ID_BYTES == STORED_ID_BYTES
