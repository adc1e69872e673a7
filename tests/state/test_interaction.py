"""An item's key: integers are themselves, and everything else is hashed above them, for ever in the same way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.interaction import MAX_ID_BYTES, NAMED, item_key


@given(st.integers(0, NAMED - 1))
def test_an_integer_below_two_to_the_62_is_its_own_key(item: int) -> None:
    assert item_key(item) == item


@given(st.integers(0, NAMED - 1))
def test_text_that_spells_an_integer_is_the_same_item(item: int) -> None:
    assert item_key(str(item)) == item


@given(st.one_of(st.integers(-(2**63), -1), st.integers(NAMED, 2**63 - 1)))
def test_an_integer_outside_that_range_is_hashed_and_so_is_its_text(item: int) -> None:
    assert NAMED <= item_key(item) < 2 * NAMED
    assert item_key(item) == item_key(str(item))


@given(st.text(min_size=1, max_size=MAX_ID_BYTES).filter(lambda text: not (text.isascii() and text.isdigit())))
def test_any_other_text_is_hashed_above_the_integers(text: str) -> None:
    assert NAMED <= item_key(text) < 2 * NAMED
    assert item_key(text) == item_key(text)


@pytest.mark.parametrize("text", ["07", "00", "-7", "+7", "7.0", " 7", "7 ", "1_000", "0x7", "٧", "²", "７", "1e3"])
def test_text_that_only_looks_like_a_number_is_not_that_number(text: str) -> None:
    assert item_key(text) >= NAMED


def test_zero_is_an_integer_and_not_a_leading_zero() -> None:
    assert item_key("0") == item_key(0) == 0


@pytest.mark.parametrize(
    ("item", "key"),
    [
        (NAMED - 1, 4611686018427387903),
        (str(NAMED - 1), 4611686018427387903),
        (NAMED, 5277003637811571238),
        ("song-a", 7470589617557632196),
        ("07", 5407607360962795103),
        (-1, 5176270097855201337),
        ("é", 8270491155137611339),
        ("e\u0301", 5661537264529138715),
        ("x" * MAX_ID_BYTES, 5933733864921584480),
        ("99999999999999999999", 6631389020257362522),
    ],
)
def test_keys_never_change_because_they_are_stored(item: int | str, key: int) -> None:
    assert item_key(item) == key
