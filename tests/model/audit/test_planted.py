"""What is planted in a log is found; nothing is found in a log without it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.audit import Finding, audit, worst
from model.version.manifest import LAST_OUT
from tests.model.audit.logs import (
    ITEMS,
    NOW_MS,
    ROWS,
    SPLIT_MS,
    START_MS,
    STEP_MS,
    Row,
    by_user,
    in_a_round,
    in_pairs,
    opened,
    plain,
    shuffled,
    version,
    with_next,
)

DAY_MS = 86_400_000


def _found(rows: list[Row], folder: Path, **how: Any) -> dict[str, Finding]:
    found = audit(opened(rows, folder), now_ms=NOW_MS, **how)
    assert len({each.name for each in found}) == len(found)
    return {each.name: each for each in found}


def test_nothing_is_found_in_a_log_without_faults(tmp_path: Path) -> None:
    found = _found(plain(), tmp_path, versions=[version(tmp_path, trained=(START_MS, SPLIT_MS - 1))])
    assert {name: each.verdict for name, each in found.items() if each.verdict != "OK"} == {}
    assert worst(list(found.values())) == "OK"


PLANTED: dict[str, tuple[Callable[[list[Row]], list[Row]], str, str, str]] = {
    "a shuffled file": (shuffled, "order", "attention", "before an earlier one of their user"),
    "a file by user": (by_user, "order", "OK", "in time order for each user"),
    "every time twice": (in_pairs, "ties", "attention", "within their user"),
    "a future timestamp": (
        lambda rows: [*rows, (1, 2, NOW_MS + 2 * DAY_MS)],
        "times",
        "FAIL",
        "; 1 later than the clock",
    ),
    "an hour ahead": (
        lambda rows: [*rows, (1, 2, NOW_MS + 3_600_000)],
        "times",
        "attention",
        "; 1 later than the clock",
    ),
    "a date that stands for none": (
        lambda rows: [(1, 2, 946_684_800_000), *rows],
        "times",
        "attention",
        "; 1 far from",
    ),
    "a slow start": (lambda rows: [(1, 2, START_MS - DAY_MS), *rows], "times", "OK", "2023-11-13 22:13 to"),
    "one time": (lambda rows: [(user, item, START_MS) for user, item, _ in rows], "times", "FAIL", "2023-11-14 22:13"),
    "some rows twice": (lambda rows: [*rows, *rows[:60]], "duplicates", "attention", "1.0% of the"),
    "every row twice": (lambda rows: [*rows, *rows], "duplicates", "FAIL", "50.0% of the"),
    "items again": (
        lambda rows: [(user, item % 40, ms) for user, item, ms in rows],
        "repeats",
        "attention",
        " at once",
    ),
    "one user has all": (
        lambda rows: [(user % 2, item, ms) for user, item, ms in rows],
        "histories",
        "attention",
        "longest",
    ),
    "everybody once": (
        lambda rows: [(place, *row[1:]) for place, row in enumerate(rows)],
        "histories",
        "attention",
        "100%",
    ),
    "other users later": (
        lambda rows: [(user if ms < SPLIT_MS else user + 100, item, ms) for user, item, ms in rows],
        "cold users",
        "attention",
        "100% of the targets",
    ),
    "an item for each row": (
        lambda rows: [(row[0], place, row[2]) for place, row in enumerate(rows)],
        "cold items",
        "FAIL",
        "100%",
    ),
    "months between": (
        lambda rows: [
            (user, item, START_MS - (ROWS - place) * 2 * DAY_MS // 3) for place, (user, item, _) in enumerate(rows)
        ],
        "gap to target",
        "attention",
        "median",
    ),
    "an id with the next one": (
        lambda rows: with_next(rows, lambda item, after: f"i{item}>i{after}"),
        "next item",
        "FAIL",
        "a part of the id before",
    ),
    "a number with the next one": (
        lambda rows: with_next(rows, lambda item, after: 1_000 * item + after),
        "next item",
        "FAIL",
        "a part of the id before",
    ),
    "a round of items": (in_a_round, "next item", "FAIL", "100% by a lookup"),
    "every item ten times": (
        lambda rows: [(user, item, ms + again) for user, item, ms in rows for again in range(10)],
        "next item",
        "OK",
        "by a lookup",
    ),
    "few rows": (lambda rows: rows[:50], "rows", "attention", "50 interactions of"),
    "ids with zeros": (
        lambda rows: [(user, f"{item:05}", ms) for user, item, ms in rows],
        "ids",
        "OK",
        "items are text",
    ),
    "no value as an id": (
        lambda rows: [("NULL" if place == 9 else str(row[0]), *row[1:]) for place, row in enumerate(rows)],
        "ids",
        "attention",
        "users are text",
    ),
    "two units": (
        lambda rows: [(user, item, ms if place % 2 else ms // 1000) for place, (user, item, ms) in enumerate(rows)],
        "time unit",
        "attention",
        "3,000 in seconds, 3,000 in milliseconds",
    ),
}


@pytest.mark.parametrize(("plant", "name", "verdict", "figure"), PLANTED.values(), ids=PLANTED)
def test_what_is_planted_is_found(
    tmp_path: Path, plant: Callable[[list[Row]], list[Row]], name: str, verdict: str, figure: str
) -> None:
    found = _found(plant(plain()), tmp_path)[name]
    assert found.verdict == verdict
    assert figure in found.figure
    assert found.words.endswith((".", "?"))


def test_a_few_late_rows_do_not_look_like_a_shuffled_file(tmp_path: Path) -> None:
    rows = plain()
    late = [*rows[:50], *rows[60:], *rows[50:60]]
    assert "looks shuffled" in _found(shuffled(rows), tmp_path)["order"].words
    assert "looks shuffled" not in _found(late, tmp_path)["order"].words


@pytest.mark.parametrize("form", ["shoes-{}", "shoes-{}-shoes", "{}"])
def test_ids_of_one_category_are_no_leak(tmp_path: Path, form: str) -> None:
    rows = [(user, form.format(item), ms) for user, item, ms in plain()]
    assert _found(rows, tmp_path)["next item"].verdict == "OK"


def test_without_a_clock_nothing_is_later_than_it(tmp_path: Path) -> None:
    rows = [*plain(), (1, 2, NOW_MS + 3_600_000)]
    assert {each.name: each.verdict for each in audit(opened(rows, tmp_path))}["times"] == "OK"


@pytest.mark.parametrize(
    ("trained", "split", "verdict", "figure"),
    [
        (None, "", "OK", "made@1: none"),
        ((START_MS - 9, START_MS - 1), "by time", "OK", "made@1: 0% of the log, 0% of its targets"),
        ((START_MS, SPLIT_MS - 1), "by time", "OK", "made@1: 90.0% of the log, 0% of its targets"),
        ((START_MS, SPLIT_MS), "by time", "attention", "made@1: 90.0% of the log, 0.2% of its targets"),
        ((SPLIT_MS, NOW_MS), "by time", "FAIL", "made@1: 10.0% of the log, 100% of its targets"),
        ((START_MS, NOW_MS), f"{LAST_OUT}: …", "FAIL", "made@1: 100% of the log, 100% of its targets"),
    ],
)
def test_a_model_that_was_trained_on_the_test_range_is_found(
    tmp_path: Path, trained: tuple[int, int] | None, split: str, verdict: str, figure: str
) -> None:
    found = _found(plain(), tmp_path, versions=[version(tmp_path, trained=trained, split=split)])["training range"]
    assert (found.verdict, found.figure, found.version) == (verdict, figure, "made@1")
    assert ("saw what others did" in found.words) == split.startswith(LAST_OUT)


@pytest.mark.parametrize(
    ("how", "verdict", "share"),
    [
        ({}, "FAIL", "50.0%"),
        ({"begin_ms": START_MS + 1000 * STEP_MS}, "FAIL", "94.0%"),
        ({"begin_ms": SPLIT_MS + 300 * STEP_MS}, "OK", "0%"),
        ({"serves_from": {"made@1": SPLIT_MS + 300 * STEP_MS}}, "OK", "0%"),
        ({"serves_from": {"made@1": START_MS}}, "FAIL", "50.0%"),
        ({"serves_from": {"made@2": NOW_MS}}, "FAIL", "50.0%"),
    ],
)
def test_what_a_model_predicts_begins_with_the_targets_and_where_it_serves(
    tmp_path: Path, how: dict[str, Any], verdict: str, share: str
) -> None:
    trained = (SPLIT_MS - 5400 * STEP_MS, SPLIT_MS + 300 * STEP_MS - 1)
    found = _found(plain(), tmp_path, versions=[version(tmp_path, trained=trained)], **how)["training range"]
    assert (found.verdict, found.figure) == (verdict, f"made@1: 95.0% of the log, {share} of its targets")


@pytest.mark.parametrize(
    ("items", "verdict", "figure", "words"),
    [
        (list(range(ITEMS)), "OK", "made@1: 0% of the interactions", "has every item."),
        ([str(item) for item in range(ITEMS)], "OK", "made@1: 0% of the interactions", "has every item."),
        (list(range(ITEMS - 10)), "OK", "made@1: ", "lacks 10 of 500 items: 49"),
        (list(range(0, ITEMS, 5)), "FAIL", "made@1: ", "lacks 400 of 500 items"),
        ([f"{item:05}" for item in range(ITEMS)], "FAIL", "made@1: 100% of the interactions", 'the catalogue has "00'),
    ],
)
def test_items_that_a_catalogue_lacks_are_found(
    tmp_path: Path, items: list[Any], verdict: str, figure: str, words: str
) -> None:
    found = _found(plain(), tmp_path, versions=[version(tmp_path, items)])["unknown items"]
    assert found.verdict == verdict
    assert found.figure.startswith(figure)
    assert words in found.words


def test_last_interactions_are_earlier_than_inputs_of_others(tmp_path: Path) -> None:
    # u's last interaction is the first of all; v's is the last of all.
    rows = [("u", 1, START_MS), ("u", 2, START_MS + 1)] + [
        ("v", item, START_MS + STEP_MS * item) for item in range(1, 9)
    ]
    found = _found(rows, tmp_path)["future targets"]
    assert found.figure == "0% by time; 50.0% if each user's last interaction is the target"
