"""Ids of both sides, beside each other."""

import time

import pytest

from model.ids import Id
from model.version.unknown_items import both_sides


@pytest.mark.parametrize(
    ("unknown", "catalogue", "words"),
    [
        (["00022", "00007"], [5, 7, 22], '"00022", "00007"; the catalogue has 22, 7'),
        ([22], ["00022", "00023"], '22; the catalogue has "00022"'),
        (["item:22"], [1, 22], '"item:22"; the catalogue has 22'),
        (["22.0"], ["22"], '"22.0"; the catalogue has "22"'),
        (["SHOE"], ["hat", "shoe"], '"SHOE"; the catalogue has "shoe"'),
        (["a", "b", "c", "d"], ["w", "x", "y", "z"], '"a", "b", "c"; the catalogue has "w", "x", "y"'),
        (["a", "a", "b"], [1], '"a", "b"; the catalogue has 1'),
        (["\x1b[31mred"], ["red"], '"\\u001b[31mred"; the catalogue has "red"'),
        (["x" * 250], [1], f'"{"x" * 40}\\u2026"; the catalogue has 1'),
    ],
)
def test_ids_are_shown_beside_those_that_look_like_them(unknown: list[Id], catalogue: list[Id], words: str) -> None:
    assert both_sides(unknown, catalogue) == words


def test_a_large_catalogue_costs_little() -> None:
    catalogue = [f"item-{number}" for number in range(2_000_000)]
    began = time.process_time()
    both_sides(["other"], catalogue)
    assert time.process_time() - began < 2
