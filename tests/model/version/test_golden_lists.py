"""A program must answer as it did when its version was written, and its answers must be possible.

That each kind's program, loaded from disk, answers as its network did is in `tests/model/networks/test_contract.py`.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from model.errors import GoldenMismatch, ModelFailed
from model.version import golden
from model.version.torchscript import Program
from tests.model import tiny


class Wrong:
    """A program with one of its answers changed."""

    def __init__(self, sound: Any, method: str, change: Callable[[Any, Any], Any]) -> None:
        self._sound, self._method, self._change = sound, method, change

    def __getattr__(self, name: str) -> Any:
        sound = getattr(self._sound, name)
        return (lambda *given: self._change(*sound(*given))) if name == self._method else sound


def _fails(*_: object) -> None:
    raise RuntimeError("the whole program\nRuntimeError: sizes differ")


IMPOSSIBLE: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "gives numbers that are not finite": ("update", lambda memory, hidden: (memory * torch.nan, hidden)),
    "'fold from no memory' gives numbers that are not": ("update", lambda memory, hidden: (memory, hidden / 0)),
    "gives a memory of zeros only": ("update", lambda memory, hidden: (memory * 0, hidden)),
    r"gives memories \[3, 2, 16\] and hidden": ("update", lambda memory, hidden: (memory[:, 1:], hidden)),
    "gives the same score to all items": ("rank", lambda rows, scores: (rows, scores * 0)),
    "gives the same score to all items, 0.5": ("recommend", lambda rows, scores: (rows, scores * 0 + 0.5)),
    "gives scores that are not finite": ("recommend", lambda rows, scores: (rows, scores * torch.nan)),
    "gives scores that do not descend": ("recommend", lambda rows, scores: (rows, -scores)),
    r"expected 10 different ones of 1\.\.60": ("rank", lambda rows, scores: (rows * 0 + 7, scores)),
    r"gives rows \[3, 5\] and scores \[3, 5\]": ("rank", lambda rows, scores: (rows[:, :5], scores[:, :5])),
    "which were to be left out": (
        "rank",
        lambda rows, scores: (torch.arange(1, 11).expand(len(rows), -1), scores),
    ),
    "gives 1 items, although more are left": (
        "recommend",
        lambda rows, scores: (rows, torch.where(torch.arange(rows.size(1)) > 0, -torch.inf, scores)),
    ),
}


@pytest.mark.parametrize("why", IMPOSSIBLE)
def test_answers_that_cannot_be_right_are_refused_when_they_are_made_and_when_they_are_checked(why: str) -> None:
    sound = tiny.serving()
    wrong = Wrong(sound, *IMPOSSIBLE[why])
    with pytest.raises(GoldenMismatch, match=why):
        golden.made(wrong)
    with pytest.raises(GoldenMismatch, match=why):
        golden.check(wrong, golden.made(sound))


@pytest.mark.parametrize("method", ["update", "rank", "recommend"])
def test_a_call_that_raises_is_a_failure_of_the_model(method: str) -> None:
    wrong = Wrong(tiny.serving(), method, _fails)
    with pytest.raises(ModelFailed, match=r"the program failed in '.*' of golden.json: RuntimeError: sizes differ"):
        golden.made(wrong)


OTHERS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "the memories of 'fold from no memory' differ": ("update", lambda memory, hidden: (memory + 1e-3, hidden)),
    "the hidden states of 'fold from no memory' differ": ("update", lambda memory, hidden: (memory, hidden + 1e-3)),
    "the list of 'rank after a fold from no memory', user 0, differs": (
        "rank",
        lambda rows, scores: (rows, scores + 1e-3),
    ),
    "the list of 'memory and working memory', user 0, differs": (
        "recommend",
        lambda rows, scores: (rows.flip(1), scores),
    ),
}


@pytest.mark.parametrize("why", OTHERS)
def test_another_answer_is_refused(why: str) -> None:
    sound = tiny.serving()
    with pytest.raises(GoldenMismatch, match=why):
        golden.check(Wrong(sound, *OTHERS[why]), golden.made(sound))


def test_numbers_may_differ_a_little_and_equal_scores_may_swap() -> None:
    """The two most popular items of the tiny network have one score, and so have the 10th and the 11th."""
    sound = tiny.serving()
    assert tiny.popularity()[2] == tiny.popularity()[3]
    assert tiny.popularity()[10] == tiny.popularity()[11]

    def swapped(rows: Any, scores: Any) -> Any:
        popular = (rows[:, 0] == 1)[:, None]
        return torch.where(popular, torch.tensor([1, 3, 2, 5, 4, 7, 6, 9, 8, 11]), rows), scores + 3e-5

    assert 0 < golden.check(Wrong(sound, "recommend", swapped), golden.made(sound)) <= 3.1e-5
    moved = Wrong(sound, "update", lambda memory, hidden: (memory + 3e-5, hidden))
    assert 0 < golden.check(moved, golden.made(sound)) <= 3.1e-5
    assert golden.check(sound, golden.made(sound)) < 1e-6, (
        "prefixes come from another pass than the lists that are kept"
    )


def test_popular_items_may_all_be_equally_popular() -> None:
    serving = tiny.serving()
    serving.popularity.fill_(1.0)
    golden.check(serving, golden.made(serving))


@pytest.mark.parametrize("n_items", [1, 2, 3])
def test_a_catalogue_may_be_small(n_items: int) -> None:
    config = tiny.table(n_items=n_items)
    serving = tiny.serving(config=config)
    golden.check(serving, golden.made(serving))


@pytest.mark.parametrize("change", [{"n_items": 59}, {"n_items": 8}, {"segment_length": 13}], ids=str)
def test_the_golden_lists_of_another_shape_are_refused(change: dict[str, int]) -> None:
    data = golden.made(tiny.serving())
    with pytest.raises(GoldenMismatch, match=r"golden.json"):
        golden.check(tiny.serving(config=tiny.table(**change)), data)


def _without(data: dict[str, Any], part: str) -> dict[str, Any]:
    return data | {part: dict(list(data[part].items())[1:])}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda _: b"", "malformed: Input data was truncated"),
        (lambda _: b"{}", "malformed: Object missing required field `asked`"),
        (lambda data: json.dumps(_without(data, "folds")).encode(), "lacks 'fold from no memory'"),
        (lambda data: json.dumps(_without(data, "lists")).encode(), "lacks 'rank after a fold from no memory'"),
        (
            lambda data: json.dumps(data | {"asked": data["asked"] | {"first": [[61]]}}).encode(),
            "not of this program: it asks for other rows",
        ),
        (
            lambda data: json.dumps(data | {"asked": data["asked"] | {"k": 9}}).encode(),
            "the lists of .* have other sizes than were asked for",
        ),
    ],
)
def test_a_damaged_file_is_refused(change: Callable[[dict[str, Any]], bytes], why: str) -> None:
    serving: Program = tiny.serving()
    with pytest.raises(GoldenMismatch, match=why):
        golden.check(serving, change(json.loads(golden.made(serving))))
