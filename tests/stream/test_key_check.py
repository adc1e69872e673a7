"""Keys compared with their partitions: nothing is said of what is right, and the cure is said of what is not."""

import re
import struct
from typing import Final, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.kafka.known_partitioners import Expected, Partitioner
from stream.kafka.partitioner import partitions_of
from stream.key_check import COMPARED_A_STEP, JUDGED_AMONG, JUDGED_FROM, KeyCheck, judged, misplaced
from stream.keys import KeyFormat

PARTITIONERS: Final[tuple[Partitioner, ...]] = get_args(Partitioner)
WIDTH: Final = 6


def sent(
    users: list[str], partitioner: Partitioner, width: int = WIDTH, keys: KeyFormat | None = None
) -> dict[int, list[bytes]]:
    """Users by partition, as a producer with this partitioner sends them."""
    form = keys or KeyFormat()
    found: dict[int, list[bytes]] = {}
    places = partitions_of([form.key(user) for user in users], width, partitioner).tolist() if users else []
    for user, number in zip(users, places, strict=True):
        found.setdefault(number, []).append(user.encode())
    return found


def people(count: int, start: int = 0) -> list[str]:
    return [str(number) for number in range(start, start + count)]


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1).map(str), unique=True),
    st.integers(1, 40),
    st.sampled_from(PARTITIONERS),
    st.sampled_from(["utf8", "json", "long"]),
)
def test_nothing_is_said_while_every_key_is_in_its_partition(
    users: list[str], width: int, name: Partitioner, form: str
) -> None:
    keys = KeyFormat(form)  # type: ignore[arg-type]
    check = KeyCheck("clicks", name, keys)
    for _ in range(3):
        found = check.compare(sent(users, name, width, keys), width)
        assert (found.misplaced, list(found.warnings)) == (0, [])


@given(st.sampled_from(PARTITIONERS), st.sampled_from(PARTITIONERS), st.integers(2, 40))
def test_the_partitioner_that_all_keys_fit_is_named(expected: Partitioner, actual: Partitioner, width: int) -> None:
    check = KeyCheck("clicks", expected)
    said = check.compare(sent(people(150), actual, width), width).warnings
    if expected == actual:
        assert not said
    else:
        assert re.search(rf"All \d+ fit {actual} ", said[0])
        assert f"set REC2PM_PARTITIONER={actual}, or partitioner=" in said[0]


def test_a_warning_is_said_once() -> None:
    check = KeyCheck("clicks")
    said = [check.compare(sent(people(100, start), "crc32"), WIDTH).warnings for start in (0, 100, 200)]
    assert [len(each) for each in said] == [1, 0, 0]


def test_the_counts_go_on_after_the_warning() -> None:
    check = KeyCheck("clicks")
    for _ in range(2):
        found = check.compare(sent(people(100), "crc32"), WIDTH)
    assert found.keys > 80
    assert found.misplaced > found.keys / 2  # five sixths, and by chance some more or fewer


def test_the_warning_says_how_many_where_and_why() -> None:
    pairs = [(b"a", 0), (b"b", 3)] * 50
    own = partitions_of([b"a", b"b"], 4, "murmur2").tolist()
    pairs = [(b"a", own[0]), (b"b", (own[1] + 1) % 4)] * 50
    said = judged(pairs, 4, "murmur2", "clicks")
    assert said is not None
    assert said.startswith(
        "clicks: 50 of 100 keys are not in the partition where murmur2 (REC2PM_PARTITIONER) sends them"
    )
    assert f"one of them is in partition {(own[1] + 1) % 4} instead of {own[1]}" in said
    assert "two half histories" in said


def test_a_second_producer_is_told_from_a_wrong_setting() -> None:
    check = KeyCheck("clicks")
    users = sent(people(100), "murmur2")
    for number, some in sent(people(50, 1000), "crc32").items():
        users.setdefault(number, []).extend(some)
    (said,) = check.compare(users, WIDTH).warnings
    assert "They fit crc32 (the default of librdkafka), and the others fit murmur2 (the default of Java)" in said
    assert "Set partitioner=murmur2_random in the one that differs" in said


def test_partitions_that_no_known_partitioner_chose_lead_to_ignore() -> None:
    users = {number: [user.encode() for user in people(30, 30 * number)] for number in range(4)}
    (said,) = KeyCheck("clicks").compare(users, 4).warnings
    assert "No known partitioner (murmur2, crc32, fnv1a) explains them" in said
    assert "REC2PM_PARTITIONER=ignore" in said


def test_few_keys_fit_by_chance_and_nothing_is_concluded_from_them() -> None:
    own = partitions_of([b"a"], 2, "murmur2").tolist()[0]
    said = judged([(b"a", own)] * 40 + [(b"a", 1 - own)], 2, "murmur2", "clicks")
    assert said is not None
    assert "too few to tell why" in said


def test_a_misplaced_key_is_reported_when_there_are_enough_to_judge_even_if_the_later_ones_are_right() -> None:
    check = KeyCheck("clicks")
    own = partitions_of([b"a"], WIDTH, "murmur2").tolist()[0]
    assert not check.compare({(own + 1) % WIDTH: [b"a"]}, WIDTH).warnings
    warned = [bool(check.compare(sent([user], "murmur2"), WIDTH).warnings) for user in people(JUDGED_FROM)]
    assert warned.index(True) == JUDGED_FROM - 2
    assert warned.count(True) == 1


def test_ignore_compares_nothing() -> None:
    found = KeyCheck("clicks", "ignore").compare(sent(people(100), "crc32"), WIDTH)
    assert (found.keys, found.misplaced, list(found.warnings)) == (0, 0, [])


def test_a_topic_of_one_partition_has_no_wrong_place() -> None:
    assert not KeyCheck("clicks").compare({0: [b"a", b"b"] * 50}, 1).misplaced


@pytest.mark.parametrize("width", [1, 7, 1000])
def test_a_step_costs_the_same_however_many_users_and_partitions_it_has(width: int) -> None:
    found = KeyCheck("clicks").compare(sent(people(20_000), "murmur2", width), width)
    assert found.keys <= max(COMPARED_A_STEP, width)


def test_the_newest_keys_decide() -> None:
    check = KeyCheck("clicks")
    for start in range(0, 3 * JUDGED_AMONG, 100):
        assert not check.compare(sent(people(100, start), "murmur2"), WIDTH).warnings
    (said,) = check.compare(sent(people(100), "crc32"), WIDTH).warnings
    assert f" of {JUDGED_AMONG} keys" in said


def test_keys_are_placed_by_their_bytes_and_not_by_the_text_of_the_user() -> None:
    users = people(100)
    keys = KeyFormat("long")
    assert not KeyCheck("clicks", "murmur2", keys).compare(sent(users, "murmur2", WIDTH, keys), WIDTH).misplaced
    assert misplaced([(struct.pack(">q", int(user)), 0) for user in users], WIDTH, "murmur2")


@pytest.mark.parametrize("expected", ["murmur2", "ignore"])
def test_json_text_as_a_key_is_noticed_once(expected: Expected) -> None:
    check = KeyCheck("clicks", expected)
    users = {0: [b'"42"']}
    (said,) = check.compare(users, 1).warnings
    assert "REC2PM_KEY_FORMAT=json" in said
    assert not check.compare(users, 1).warnings
    assert not KeyCheck("clicks", expected, KeyFormat("json")).compare({0: [b'"42"']}, 1).warnings
