"""The oracle says that a right worker is right, and notices each way of being wrong.

The evidence is what the real step makes of random interactions (on a link in memory); each test tampers with a copy of
it.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest

from model.version.registry import Registry
from model.version.runtime import Runtime
from tests.crash import ledger
from tests.crash.evidence import FIRST, FROM, ITEMS, LENGTH, RULES, interactions, observed
from tests.crash.oracle import Verdict, judge
from tests.crash.reading import Kept, Observed
from tests.crash.taken import Taken
from tests.fakes import FakeRecord, said


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return Runtime.load(ledger.write(Registry(tmp_path_factory.mktemp("models")), ITEMS, LENGTH).folder)


@pytest.fixture(scope="module")
def evidence(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Observed:
    chosen = random.Random(0)
    # Polls of at most five: in longer ones `test_a_list_that_follows_two_nulls_in_a_poll_stays` finds what it expects
    # to fail at.
    return observed(interactions(1000, chosen), list(range(0, 1000, 5)), tmp_path_factory.mktemp("state"), runtime)


def test_what_the_step_makes_of_random_interactions_is_right(evidence: Observed) -> None:
    verdict = judge(evidence, RULES)
    assert verdict.holds, verdict.examples
    assert verdict.interactions > 800
    assert min(verdict.lists, verdict.forgotten, verdict.malformed) > 20


def wrong(evidence: Observed, **changed: Any) -> tuple[int, int, int]:
    verdict: Verdict = judge(replace(evidence, **changed), RULES)
    assert verdict.holds is (verdict.lost == verdict.doubled == verdict.differing == 0)
    return verdict.lost, verdict.doubled, verdict.differing


def first_list(evidence: Observed) -> int:
    return next(at for at, each in enumerate(evidence.recommendations) if each.value is not None)


def test_a_lost_and_a_doubled_list_are_noticed(evidence: Observed) -> None:
    lists = list(evidence.recommendations)
    at = first_list(evidence)
    assert wrong(evidence, recommendations=lists[:at] + lists[at + 1 :]) == (1, 0, 0)
    assert wrong(evidence, recommendations=[*lists[: at + 1], *lists[at:]]) == (0, 1, 0)


@pytest.mark.parametrize("field", ["items", "scores", "as_of", "taken", "folds", "model", "source"])
def test_a_list_that_says_something_else_is_noticed(evidence: Observed, field: str) -> None:
    lists = list(evidence.recommendations)
    at = first_list(evidence)
    made = msgpack.unpackb(lists[at].value)
    other = {"items": made["items"][::-1], "scores": made["scores"][::-1]}.get(field, 77)
    lists[at] = lists[at]._replace(value=msgpack.packb({**made, field: other}))
    assert wrong(evidence, recommendations=lists) == (0, 0, 1)


def test_a_list_of_another_user_is_noticed(evidence: Observed) -> None:
    lists = list(evidence.recommendations)
    at = first_list(evidence)
    lists[at] = lists[at]._replace(key=b"somebody")
    assert wrong(evidence, recommendations=lists)[2] >= 1


def test_lists_of_a_user_in_another_order_are_noticed(evidence: Observed) -> None:
    lists = list(evidence.recommendations)
    first = first_list(evidence)
    second = next(
        at for at in range(first + 1, len(lists)) if lists[at].key == lists[first].key and lists[at].value is not None
    )
    lists[first], lists[second] = lists[second], lists[first]
    assert wrong(evidence, recommendations=lists) == (0, 0, 1)


def test_a_missing_and_an_unasked_withdrawal_are_noticed(evidence: Observed) -> None:
    lists = list(evidence.recommendations)
    withdrawals = [at for at, each in enumerate(lists) if each.value is None and _follows_a_list(lists, at)]
    assert wrong(evidence, recommendations=lists[: withdrawals[0]] + lists[withdrawals[0] + 1 :]) == (1, 0, 0)
    at = first_list(evidence)
    assert wrong(evidence, recommendations=[*lists[:at], lists[at]._replace(value=None), *lists[at:]])[1] == 1


def _follows_a_list(lists: list[Taken], at: int) -> bool:
    """Whether the withdrawal is the only one between a list of its user and what comes after."""
    earlier = [each for each in lists[:at] if each.key == lists[at].key]
    later = [each for each in lists[at + 1 :] if each.key == lists[at].key]
    return bool(earlier) and earlier[-1].value is not None and not (later and later[0].value is None)


def a_state(evidence: Observed, fits: Callable[[dict[str, Any]], bool]) -> tuple[list[dict[str, Any]], int]:
    states = [dict(each) for each in evidence.states]
    return states, next(at for at, each in enumerate(states) if fits(each))


def test_a_changed_memory_is_noticed(evidence: Observed) -> None:
    states, at = a_state(evidence, lambda row: row["folds"] > 0)
    states[at]["memory"] = [states[at]["memory"][0] + 1, *states[at]["memory"][1:]]
    assert wrong(evidence, states=states) == (0, 0, 1)


def test_a_working_item_out_of_order_is_noticed(evidence: Observed) -> None:
    states, at = a_state(evidence, lambda row: len(set(row["working_items"])) > 1)
    states[at]["working_items"] = states[at]["working_items"][::-1]
    if states[at]["working_items"] == list(evidence.states)[at]["working_items"]:
        pytest.fail("the items read the same from behind")
    assert wrong(evidence, states=states) == (0, 0, 1)


def test_a_lost_and_a_doubled_interaction_are_counted(evidence: Observed) -> None:
    states, at = a_state(evidence, lambda row: row["taken"] > 2)
    taken = states[at]["taken"]
    states[at]["taken"] = taken - 2
    assert wrong(evidence, states=states) == (2, 0, 0)
    states[at]["taken"] = taken + 1
    assert wrong(evidence, states=states) == (0, 1, 0)


def test_a_lost_user_and_one_who_was_never_there_are_noticed(evidence: Observed) -> None:
    states, at = a_state(evidence, lambda row: row["taken"] > 2)
    assert wrong(evidence, states=states[:at] + states[at + 1 :]) == (states[at]["taken"], 0, 0)
    assert wrong(evidence, states=[*states, {**states[at], "user_id": "nobody"}]) == (0, 0, 1)


def test_lost_doubled_and_changed_dead_letters_are_noticed(evidence: Observed) -> None:
    dead = list(evidence.dead_letters)
    assert wrong(evidence, dead_letters=dead[1:]) == (1, 0, 0)
    assert wrong(evidence, dead_letters=[*dead, dead[0]]) == (0, 1, 0)
    assert wrong(evidence, dead_letters=[dead[0]._replace(value=b"other"), *dead[1:]]) == (0, 0, 1)


def test_a_lost_input_record_is_noticed(evidence: Observed) -> None:
    """The oracle's own evidence cut short: everything downstream of the record differs."""
    read = list(evidence.interactions)
    at = next(at for at, each in enumerate(read) if each.value is not None and each.value[:1] == b"\x82")
    assert sum(wrong(evidence, interactions=read[:at] + read[at + 1 :])) > 0


def refused(record: Taken) -> Taken:
    """The dead letter of an interaction that can be read."""
    headers = (
        ("__streams.errors.exception", b"SomethingElse"),
        ("__streams.errors.partition", str(record.partition).encode()),
        ("__streams.errors.offset", str(record.offset).encode()),
    )
    return Taken(0, 0, record.key, record.value, 0, headers)


def test_an_interaction_refused_without_a_reason_is_noticed(evidence: Observed) -> None:
    taken = next(each for each in evidence.interactions if each.value is not None and each.value[:1] == b"\x82")
    assert wrong(evidence, dead_letters=[*evidence.dead_letters, refused(taken)])[0] >= 1


def test_an_interaction_that_the_model_fails_at_is_right_in_the_dead_letters_and_nowhere_else() -> None:
    rules = replace(RULES, versions={"ledger@1": replace(FIRST, fails=True)}, lists=100)
    *kept, poison = (Taken(0, at, b"user", said(ITEMS[-1], FROM[0] + at), 0) for at in range(LENGTH))
    row = {
        "user_id": "user",
        "taken": LENGTH - 1,
        "folds": 0,
        "working_items": [ITEMS[-1]] * (LENGTH - 1),
        "working_times": [FROM[0], FROM[0] + 1, FROM[0] + 2],
    }
    state = {**row, "memory": [], "memory_format": "", "as_of": FROM[0] + 2, "partition": 0, "missing_segments": 0}
    found = Observed([*kept, poison], [], [state], [refused(poison)])
    assert judge(found, rules).holds
    assert not judge(found, replace(rules, versions=RULES.versions)).holds, "another model does not fail"
    assert not judge(replace(found, dead_letters=[]), rules).holds, "it is nowhere"
    folded = {**state, "taken": LENGTH, "folds": 1, "working_items": [], "working_times": []}
    assert not judge(replace(found, states=[folded]), rules).holds, "it is in both places"
    early = [
        {**state, "taken": LENGTH - 2, "working_items": [ITEMS[-1]] * (LENGTH - 2), "working_times": [5, 6], "as_of": 6}
    ]
    assert not judge(Observed(kept, [], early, [refused(kept[-1])]), rules).holds, "one that only would be remembered"


def test_a_list_that_follows_two_nulls_in_a_poll_stays(runtime: Runtime, tmp_path: Path) -> None:
    one = said(ITEMS[0], 5)
    records = [
        FakeRecord(b"user", value, 0, at) for at, value in enumerate([one, one, one, None, one, None, one, one, one])
    ]
    verdict = judge(observed(records, [], tmp_path, runtime), RULES)
    assert verdict.holds, verdict.examples


def test_deleted_records_that_a_killed_broker_brings_back_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(partition: int, offsets: range) -> list[Taken]:
        return [Taken(partition, offset, b"user", b"", 0) for offset in offsets]

    topic = [*taken(0, range(3)), *taken(1, range(2))]
    monkeypatch.setattr("tests.crash.reading.records", lambda *_: iter(topic))
    kept = Kept()
    kept.add("", "")
    kept.add("", "")
    assert list(kept.and_then([*taken(0, range(5)), *taken(2, range(1))])) == [
        *taken(0, range(5)),
        *taken(2, range(1)),
        *taken(1, range(2)),
    ]
