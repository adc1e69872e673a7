"""Two lists are the same except for ties, and a difference is named."""

from typing import Any

import pytest

from tests.same_lists import list_difference

LIST: dict[str, Any] = {
    "items": ["a", "b", "c", 4],
    "scores": [0.9, 0.5, 0.5, 0.1],
    "taken": 30,
    "folds": 2,
    "model": "films@1",
    "source": "memory",
    "as_of": 1_700_000_000_000,
}


def changed(**fields: Any) -> dict[str, Any]:
    return {**LIST, **fields}


@pytest.mark.parametrize(
    "other",
    [
        changed(),
        changed(items=["a", "b", "c", "4"]),
        changed(items=["a", "c", "b", 4]),
        changed(scores=[0.900009, 0.5, 0.499995, 0.1]),
        changed(items=["a", "b", "c", "as good as 4"]),
    ],
    ids=["itself", "an item as text", "a tie", "last digits", "a tie at the end"],
)
def test_ties_and_last_digits_make_no_difference(other: dict[str, Any]) -> None:
    assert list_difference(LIST, other) is None


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (changed(model="films@2"), "model was films@1, and is films@2 again"),
        (changed(folds=1, model="films@2"), "folds was 2, and is 1 again"),
        (changed(taken=31), "taken was 30"),
        (changed(source="working"), "source was memory"),
        (changed(as_of=5), "as_of was 1700000000000, and is 5"),
        (changed(items=["b", "a", "c", 4]), "item 1 was a, and is b again"),
        (changed(items=["a", "b", "d", 4]), "item 3 was c, and is d again"),
        (changed(scores=[0.9, 0.5, 0.4999, 0.1]), "score 3 was 0.500000, and is 0.499900 again"),
        (changed(scores=[0.9, 0.5, float("nan"), 0.1]), "score 3"),
        (changed(items=["a"], scores=[0.9]), "the list had 4 items, and has 1 again"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_first_difference_is_named(other: dict[str, Any], words: str) -> None:
    assert words in (list_difference(LIST, other) or "nothing")
