"""Several versions serve one after the other: the oracle says what may be stored and recommended then, and no more."""

import random
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest

from model.version.registry import Registry
from model.version.runtime import Runtime
from tests.crash import ledger
from tests.crash.arithmetic import EMPTY, Catalogue, fold
from tests.crash.evidence import FIRST, ITEMS, KEEP, LENGTH, RULES, interactions, observed
from tests.crash.oracle import judge
from tests.crash.reading import Observed
from tests.crash.replay import Replay, Rules
from tests.crash.said import Said
from tests.crash.versions import LedgerVersion
from tests.fakes import FakeRecord, said

LESS = ITEMS[3:]
"""Of another catalogue: fewer items, and other rows of the same."""
SECOND = LedgerVersion("ledger@2", Catalogue(ITEMS), salt=50)
OTHER = LedgerVersion("ledger@3", Catalogue(LESS), dialect=2, salt=70)
SEVERAL = replace(
    RULES,
    versions={each.reference: each for each in (FIRST, SECOND, OTHER)},
    serves_within_ms=0,
    in_order=True,
)


@pytest.fixture(scope="module")
def runtimes(tmp_path_factory: pytest.TempPathFactory) -> list[Runtime]:
    registry = Registry(tmp_path_factory.mktemp("models"))
    written = [
        ledger.write(registry, each.catalogue.item_ids, LENGTH, dialect=each.dialect, salt=each.salt)
        for each in (FIRST, SECOND, OTHER)
    ]
    return [Runtime.load(each.folder) for each in written]


@pytest.fixture(scope="module")
def evidence(runtimes: list[Runtime], tmp_path_factory: pytest.TempPathFactory) -> Observed:
    order = [1, 0, 2, 0, 2, 1, 2, 0]
    steps = [*range(20, 190, 25), 196]
    promoted = {number: runtimes[which] for number, which in zip(steps, order, strict=True)}
    chosen = random.Random(0)
    return observed(
        interactions(1000, chosen), list(range(0, 1000, 5)), tmp_path_factory.mktemp("state"), runtimes[0], promoted
    )


def test_what_the_step_makes_while_versions_change_is_right(evidence: Observed) -> None:
    verdict = judge(evidence, SEVERAL)
    assert verdict.holds, verdict.examples
    assert verdict.swaps == 16
    assert {row["memory_format"] for row in evidence.states} >= {"ledger/2"}
    models = {msgpack.unpackb(each.value)["model"] for each in evidence.recommendations if each.value}
    assert models == {"ledger@1", "ledger@2", "ledger@3"}


@pytest.mark.parametrize(
    "other",
    [
        {"ledger@2": replace(SECOND, salt=51)},
        {"ledger@3": replace(OTHER, catalogue=Catalogue(ITEMS))},
        {"ledger@3": replace(OTHER, salt=71)},
    ],
    ids=["other lists", "another catalogue", "other lists in another format"],
)
def test_lists_of_another_version_than_the_one_that_is_named_are_noticed(
    evidence: Observed, other: dict[str, LedgerVersion]
) -> None:
    verdict = judge(evidence, replace(SEVERAL, versions={**SEVERAL.versions, **other}))
    assert (verdict.lost, verdict.doubled) == (0, 0)
    assert verdict.differing > 20


def test_a_version_that_served_from_another_offset_than_its_mark_says_is_noticed(evidence: Observed) -> None:
    later = {
        partition: [mark if mark.number == 0 else mark._replace(offset=mark.offset + 9) for mark in mine]
        for partition, mine in evidence.marks.items()
    }
    assert judge(replace(evidence, marks=later), SEVERAL).differing > 5


def test_a_list_that_was_made_before_its_version_was_promoted_is_noticed(evidence: Observed) -> None:
    assert all(each.reference != "ledger@1" for each in evidence.promotions[:1])
    early = [each._replace(timestamp=each.timestamp - 5_000) for each in evidence.recommendations]
    assert judge(replace(evidence, recommendations=early), SEVERAL).differing > 5


def test_earlier_memories_that_are_gone_or_should_be_are_noticed(evidence: Observed) -> None:
    assert {each.kind for mine in evidence.memories.values() for each in mine} == {"newest", "prepared", "earlier"}
    for kind in ("newest", "earlier"):
        lost = {place: [each for each in mine if each.kind != kind] for place, mine in evidence.memories.items()}
        assert judge(replace(evidence, memories=lost), SEVERAL).differing > 1
    assert judge(evidence, replace(SEVERAL, keep_formats=0)).differing > 1
    other = {place: [each._replace(folds=77) for each in mine] for place, mine in evidence.memories.items()}
    assert judge(replace(evidence, memories=other), SEVERAL).differing >= len(other)


def test_kept_segments_that_were_not_read_are_noticed(evidence: Observed) -> None:
    """As if a memory of another format were begun anew."""
    assert judge(evidence, replace(SEVERAL, keep_segments=KEEP - 1)).differing > 5


ITEM = [str(each) for each in range(20)]


def remembered(rules: Rules, taken: int) -> Replay:
    """A user after so many interactions with the first version."""
    user = Replay(rules)
    for number in range(taken):
        user.take(Said(ITEM[number % 20], number), FIRST)
    return user


def test_a_memory_of_another_format_is_made_of_the_kept_segments() -> None:
    user = remembered(SEVERAL, 4 * LENGTH)
    read = user.read_by(OTHER)
    expected = fold(EMPTY, OTHER.rows([ITEM[number % 20] for number in range(2 * LENGTH, 4 * LENGTH)]), 2)
    assert (read[0].memory, read[0].folds, read[0].missing) == (expected, 4, 2)
    assert read[1:] == user.memories


def test_a_memory_of_its_own_format_is_found_again_and_gets_what_was_folded_meanwhile() -> None:
    user = remembered(SEVERAL, 2 * LENGTH)
    for number in range(2 * LENGTH, 3 * LENGTH):
        user.take(Said(ITEM[number], number), OTHER)
    assert [each.folds for each in user.memories] == [3, 2]
    for number in range(3 * LENGTH, 4 * LENGTH):
        user.take(Said(ITEM[number], number), FIRST)
    whole = fold(EMPTY, FIRST.rows(ITEM[: 4 * LENGTH]))
    assert [(each.memory, each.missing) for each in user.memories[:1]] == [(whole, 0)]


def test_a_memory_that_nothing_was_folded_into_is_no_earlier_one() -> None:
    """It may have been prepared for lists, or by the background, and may not: the next memory is the same."""
    user = remembered(SEVERAL, 3 * LENGTH)
    assert user.read_by(OTHER)[0].missing == 1
    for number in range(3 * LENGTH, 4 * LENGTH):
        user.take(Said(ITEM[number], number), FIRST)
    assert [each.memory_format for each in user.memories] == ["ledger/1"]
    assert user.read_by(OTHER)[0].missing == 2


def test_earlier_memories_are_kept_as_far_as_is_set() -> None:
    assert [
        len(remembered(each, 2 * LENGTH).read_by(OTHER)) for each in (SEVERAL, replace(SEVERAL, keep_formats=0))
    ] == [2, 1]


def test_a_list_of_a_user_who_is_forgotten_in_the_same_step_has_a_mark_as_well(
    runtimes: list[Runtime], tmp_path: Path
) -> None:
    one = said(ITEMS[0], 1_700_000_000_000)
    records = [FakeRecord(b"ann", value, 0, at) for at, value in enumerate([one, one, one, one, one, one, None])]
    found = observed(records, [3], tmp_path, runtimes[0], {1: runtimes[1]})
    verdict = judge(found, SEVERAL)
    assert verdict.holds, verdict.examples
    assert (verdict.lists, verdict.swaps) == (2, 1)
