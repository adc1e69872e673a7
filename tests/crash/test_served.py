"""Marks are read as they are written, and each way in which they can disagree with the promotions is noticed."""

import json

import msgpack
import pytest

from tests.crash.arithmetic import Catalogue
from tests.crash.replay import Rules
from tests.crash.served import Mark, Promoted, Served, Terms, marks, promotions
from tests.crash.taken import Taken
from tests.crash.versions import LedgerVersion

VERSIONS = {
    f"ledger@{number}": LedgerVersion(f"ledger@{number}", Catalogue([1, 2, 3]), salt=number) for number in range(1, 5)
}
RULES = Rules(
    VERSIONS,
    "ledger@1",
    4,
    3,
    5,
    2,
    bad=frozenset({"ledger@4"}),
    serves_within_ms=100,
    in_order=True,
)
HISTORY = [Promoted("a", "ledger@2", 1_000), Promoted("b", "ledger@4", 2_000), Promoted("c", "ledger@3", 3_000)]
RIGHT = [
    Mark(0, "ledger@1", "", "ledger/1", 0, 10),
    Mark(1, "ledger@2", "a", "ledger/1", 40, 1_050),
    Mark(2, "ledger@3", "c", "ledger/1", 90, 3_100),
]


def test_marks_are_the_newest_records_of_their_keys_by_partition() -> None:
    def mark(partition: int, number: int, *said: object) -> Taken:
        return Taken(partition, 0, b"\x00v" + number.to_bytes(4, "big"), b"\x01" + msgpack.packb(said), 0)

    changelog = [
        mark(1, 1, "ledger@2", "a", "ledger/1", 40, 1_050),
        Taken(1, 1, b"\x00p", b"\x01\x07", 0),
        mark(1, 0, "ledger@1", "", "ledger/1", 0, 10),
        mark(0, 0, "ledger@3", "c", "ledger/1", 5, 3_100),
    ]
    assert marks(changelog) == {1: RIGHT[:2], 0: [Mark(0, "ledger@3", "c", "ledger/1", 5, 3_100)]}


def test_the_history_is_what_is_promoted_once_each_in_the_order_of_the_topic() -> None:
    def promotion(key: str, name: str, version: str, time: int) -> Taken:
        return Taken(0, 0, key.encode(), json.dumps({"id": name, "version": version}).encode(), time)

    topic = [
        promotion("promotion/a", "a", "ledger@2", 1_000),
        promotion("alias/champion", "a", "ledger@2", 1_000),
        Taken(0, 0, b"worker/w0", b"{}", 1_500),
        promotion("promotion/c", "c", "ledger@3", 3_000),
        Taken(0, 0, b"worker/w0", None, 4_000),
    ]
    assert promotions(topic) == [HISTORY[0], HISTORY[2]]


def test_marks_that_agree_with_the_promotions_are_right() -> None:
    assert list(Served(HISTORY, RULES).wrong_marks(0, RIGHT)) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Mark(1, "ledger@2", "z", "ledger/1", 40, 1_050), "its promotion z is nowhere"),
        (Mark(1, "ledger@3", "a", "ledger/1", 40, 3_050), "its promotion a is of another version"),
        (Mark(1, "ledger@9", "", "ledger/1", 40, 1_050), "there is no such version"),
        (Mark(1, "ledger@3", "", "ledger/1", 40, 1_050), "something else had been promoted long before"),
        (Mark(1, "ledger@2", "a", "ledger/2", 40, 1_050), "it says memory format ledger/2"),
        (Mark(1, "ledger@4", "b", "ledger/1", 40, 2_050), "this version cannot serve"),
        (Mark(1, "ledger@2", "a", "ledger/1", 40, 990), "it served 10 ms before it was promoted"),
        (Mark(1, "ledger@2", "a", "ledger/1", 40, 3_101), "something else had been promoted long before"),
        (Mark(1, "ledger@2", "a", "ledger/1", -1, 1_050), "the mark before it is from 0 on"),
        (Mark(1, "ledger@1", "", "ledger/1", 40, 1_050), "the mark before it says the same"),
    ],
)
def test_a_mark_that_does_not_is_told(wrong: Mark, said: str) -> None:
    (line,) = Served(HISTORY, RULES).wrong_marks(0, [RIGHT[0], wrong])
    assert said in line


def test_a_partition_that_goes_back_to_an_older_promotion_is_told() -> None:
    (line,) = Served(HISTORY, RULES).wrong_marks(0, [RIGHT[2], RIGHT[1]._replace(offset=95, wall_ms=3_050)])
    assert "the mark before it is of a later promotion" in line


@pytest.mark.parametrize(
    ("reference", "time", "may"),
    [
        ("ledger@1", 1_100, True),
        ("ledger@1", 1_101, False),
        ("ledger@2", 999, False),
        ("ledger@2", 1_000, True),
        ("ledger@2", 3_100, True),  # what was promoted meanwhile cannot serve
        ("ledger@2", 3_101, False),
        ("ledger@4", 2_500, False),
        ("ledger@3", 9_999, True),
    ],
)
def test_a_version_may_serve_from_its_promotion_until_a_moment_after_the_next(
    reference: str, time: int, may: bool
) -> None:
    assert Served(HISTORY, RULES).may(reference, time) is may


def test_a_worker_that_could_not_fetch_the_newest_version_is_excused() -> None:
    served = Served(HISTORY, RULES, [(3_050, 4_000)])
    assert served.may("ledger@2", 4_000)
    assert not served.may("ledger@2", 4_001)
    assert served.may("ledger@1", 4_000)


def test_a_partition_is_served_by_the_version_of_its_last_mark_before() -> None:
    terms = Terms(RIGHT, RULES)
    assert [terms.at(offset).reference for offset in (0, 39, 40, 89, 90, 1_000)] == [
        "ledger@1",
        "ledger@1",
        "ledger@2",
        "ledger@2",
        "ledger@3",
        "ledger@3",
    ]
    assert terms.last.reference == "ledger@3"
