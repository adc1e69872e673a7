"""What is an id, and what is not."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ids import ANY_CONTROL, CONTROL, DECIMAL, HIGHEST, LOWEST, MAX_ID_BYTES, Id, IdType, checked, stated
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
        ("a\n", "has control characters"),
        ("\x00" * 7 + "*", "has control characters"),
        ("\x7f", "has control characters"),
        ("\x1b[31m", "has control characters"),
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


@pytest.mark.parametrize(
    ("value", "id_type", "expected"),
    [
        ("00022", "integer", 22),
        ("-007", "integer", -7),
        ("000", "integer", 0),
        ("-0", "integer", 0),
        ("7.0", "integer", 7),
        ("7.5", "integer", "7.5"),
        ("+7", "integer", "+7"),
        ("a7", "integer", "a7"),
        ("0" * 30 + "7", "integer", 7),
        (str(HIGHEST), "integer", HIGHEST),
        (str(HIGHEST + 1), "integer", str(HIGHEST + 1)),
        (7.0, "integer", 7),
        (-0.0, "integer", 0),
        (7, "integer", 7),
        ("00022", "text", "00022"),
        (22, "text", "22"),
        (b"caf\xc3\xa9", "text", "café"),
    ],
)
def test_a_user_says_what_a_file_cannot(value: object, id_type: IdType, expected: Id) -> None:
    found = stated(value, id_type)

    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "id_type", "said"),
    [
        (7.5, "integer", "is a float that is not a whole number"),
        (2.0**60, "integer", "up to 2**53"),
        (float("nan"), "integer", "is a float"),
        (float("inf"), "integer", "is a float"),
        (7.0, "text", "is a float"),
        (b"\xff", "text", "is binary that is not UTF-8"),
        (b"7", "integer", "is binary"),
        ("", "integer", "is empty"),
        (True, "text", "is true or false"),
    ],
)
def test_what_a_user_says_does_not_make_an_id_of_everything(value: object, id_type: IdType, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        stated(value, id_type)


def test_the_two_ways_to_say_which_characters_are_controls_agree() -> None:
    assert [code for code in range(0x100) if re.search(ANY_CONTROL, chr(code))] == list(CONTROL)
