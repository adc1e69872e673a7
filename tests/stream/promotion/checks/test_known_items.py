"""When a catalogue knows too little of the newest interactions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ids import Id
from stream.promotion.checks.known_items import known_items
from stream.promotion.newest import Newest


def _newest(items: list[Id]) -> Newest:
    return Newest("plays", (b"user",) * len(items), tuple(items), (1,) * len(items))


THOUSAND: list[Id] = list(range(1000))
CASES: dict[str, tuple[list[Id], list[Id], list[Id] | None, str, str]] = {
    "all, no champion": (THOUSAND, THOUSAND, None, "passed", "100.0% of the newest 1,000 interactions of plays"),
    "half": (THOUSAND, THOUSAND[:500], None, "passed", "50.0% of"),
    "less than half": (THOUSAND, THOUSAND[:499], None, "failed", "at least 50% is expected"),
    "less than half, and the champion knows no more": (THOUSAND, THOUSAND[:300], THOUSAND[:300], "failed", "at least"),
    "more than the champion": (THOUSAND, THOUSAND, THOUSAND[:700], "passed", "the champion knows 70.0%"),
    "two in a hundred fewer": (THOUSAND, THOUSAND[:980], THOUSAND, "passed", "the champion knows 100.0%"),
    "three in a hundred fewer": (THOUSAND, THOUSAND[:970], THOUSAND, "failed", "at most 2 in a hundred may be lost"),
    "other ones, as many": (THOUSAND, THOUSAND[:900], THOUSAND[100:], "passed", "the champion knows 90.0%"),
    "three in a hundred fewer of a few": (THOUSAND[:100], THOUSAND[:97], THOUSAND, "passed", "97.0%"),
    "five in a hundred fewer of a few": (THOUSAND[:100], THOUSAND[:95], THOUSAND, "failed", "95.0%"),
    "too few to say": (THOUSAND[:99], [], THOUSAND, "left out", "hold 99 interactions, 100 are needed"),
    "none at all": ([], THOUSAND, THOUSAND, "left out", "hold 0 interactions"),
    "text that spells a number is the number": (["7"] * 200, [7], [7], "passed", "100.0%"),
}


@pytest.mark.parametrize(("items", "catalogue", "champions", "result", "words"), CASES.values(), ids=list(CASES))
def test_a_catalogue_knows_half_of_the_interactions_and_not_clearly_less_than_the_champion(
    items: list[Id], catalogue: list[Id], champions: list[Id] | None, result: str, words: str
) -> None:
    found = known_items(_newest(items), catalogue, champions)
    assert found.result == result
    assert words in found.figure


@given(st.lists(st.integers(0, 30), min_size=100, max_size=300), st.sets(st.integers(0, 30)))
def test_no_catalogue_fails_beside_itself_but_for_what_it_knows(items: list[Id], catalogue: set[int]) -> None:
    alone = known_items(_newest(items), list(catalogue), None)
    assert known_items(_newest(items), list(catalogue), list(catalogue)).result == alone.result
