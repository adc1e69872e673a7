"""The bytes of state: what was written is read back, what cannot be read is named, and every format ever written stays
readable.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.codec import (
    FOLDED,
    FORMAT,
    MAX_TAKEN,
    OFFSET,
    ONE_FORMAT,
    PREFERENCE,
    PREPARED,
    SEGMENT_LENGTH,
    WORKING,
    Mark,
    aside_value,
    earlier_key,
    folded_key,
    folded_value,
    mark_key,
    mark_value,
    name_key,
    name_value,
    named_item,
    number_value,
    one_format_value,
    preference_key,
    preference_value,
    prepared_key,
    read_folded,
    read_mark,
    read_name,
    read_number,
    read_one_format,
    read_preference,
    read_user,
    read_working,
    taken_of,
    user_of,
    user_prefix,
    working_key,
    working_value,
)
from state.errors import StateCorrupted, StateError, StateFormatUnknown
from state.user import NEW_USER, Preference, packed, unpacked

GOLDEN = Path(__file__).parent / "golden"

item_keys = st.integers(0, 2**63 - 1)
times = st.integers(0, 2**53)
taken = st.lists(st.tuples(item_keys, times), max_size=300)
user_ids = st.text(min_size=1).map(str.encode).filter(lambda user: len(user) <= 255)
preferences = st.builds(
    Preference,
    memory_format=st.text(max_size=40),
    segment_length=st.integers(1, 1 << 16),
    folds=st.integers(1, 2**32 - 1),
    as_of=times,
    memory=st.binary(max_size=2048),
    missing=st.integers(0, 2**32 - 1),
)
marks = st.builds(Mark, st.text(), st.text(), st.text(), st.integers(0, 2**63 - 1), times)

READERS: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "preference": (
        read_preference,
        preference_value(Preference("rec2pm-o/1", 50, 3, 978_300_760_000, b"\x00\x01\x02\x03")),
    ),
    "working": (read_working, working_value([1193, 2**62 + 5], [978_300_760_000, 978_300_761_000])),
    "aside": (read_preference, aside_value(Preference("rec2pm-o/1", 50, 3, 978_300_760_000, b"\x00\x01\x02\x03"))),
    "folded": (read_folded, folded_value([1193, 661, 2**62 + 5])),
    "folded with times": (read_folded, folded_value([1193, 2**62 + 5], [978_300_760_000, 978_300_761_000])),
    "mark": (read_mark, mark_value(Mark("films@2", "01J", "rec2pm-o/1", 150_032, 978_300_760_000))),
    "one format": (read_one_format, one_format_value("rec2pm-o/1")),
    "name": (read_name, name_value("song-é")),
    "number": (read_number, number_value(150_032)),
}
every_reader = pytest.mark.parametrize(("read", "value"), READERS.values(), ids=READERS)


@given(preferences)
def test_a_preference_memory_is_read_back(preference: Preference) -> None:
    assert read_preference(preference_value(preference)) == preference
    assert read_preference(aside_value(preference)) == preference


@given(marks, taken.filter(bool))
def test_marks_and_segments_with_times_are_read_back(mark: Mark, segment: list[tuple[int, int]]) -> None:
    items, stamps = [item for item, _ in segment], [time for _, time in segment]
    assert read_mark(mark_value(mark)) == mark
    assert read_one_format(one_format_value(mark.memory_format)) == mark.memory_format
    assert read_folded(folded_value(items, stamps)) == (items, stamps)


def test_an_earlier_build_refuses_what_it_would_misread() -> None:
    """It knows values of format 1 alone, and takes each memory of a user for the one that serves."""
    preference = Preference("fake/1", 4, 1, 40, b"\x00" * 8)
    rebuilt = Preference("fake/1", 4, 1, 40, b"\x00" * 8, missing=1)
    values = [aside_value(preference), preference_value(rebuilt), folded_value([1], [10])]
    assert {value[0] for value in values} == {2}
    assert {preference_value(preference)[0], folded_value([1])[0]} == {1}


@given(taken)
def test_a_working_record_is_read_back_whatever_the_order_of_its_times(interactions: list[tuple[int, int]]) -> None:
    items, stamps = [item for item, _ in interactions], [time for _, time in interactions]
    assert read_working(working_value(items, stamps)) == (items, stamps)


@given(st.lists(item_keys), st.text(), st.integers(0, 2**63 - 1))
def test_folded_segments_names_and_numbers_are_read_back(items: list[int], text: str, number: int) -> None:
    assert read_folded(folded_value(items)) == (items, [])
    assert read_name(name_value(text)) == text
    assert read_number(number_value(number)) == number


@given(user_ids, st.integers(0, MAX_TAKEN), st.integers(0, 2**32 - 1))
def test_a_key_says_whose_it_is_and_of_what_kind(user: bytes, count: int, segment: int) -> None:
    assert user_of(preference_key(user)) == (user, PREFERENCE)
    whose, rest = user_of(working_key(user, count))
    assert (whose, rest[:1], taken_of(rest)) == (user, WORKING, count)
    assert user_of(folded_key(user, segment)) == (user, FOLDED + segment.to_bytes(4, "big"))
    assert user_of(prepared_key(user)) == (user, PREPARED)
    whose, rest = user_of(earlier_key(user, str(count)))
    assert (whose, rest[:1], len(rest)) == (user, PREFERENCE, 9)
    assert rest != user_of(earlier_key(user, str(count + 1)))[1]


@given(user_ids, user_ids)
def test_no_users_keys_are_a_prefix_of_anothers(one: bytes, other: bytes) -> None:
    assert user_prefix(other).startswith(user_prefix(one)) == (one == other)


@given(user_ids, st.lists(st.integers(0, MAX_TAKEN), min_size=2, max_size=9))
def test_a_users_keys_sort_working_from_the_newest_on_then_preference_then_folded(
    user: bytes, counts: list[int]
) -> None:
    working = [working_key(user, count) for count in sorted(counts, reverse=True)]
    memories = [preference_key(user), *sorted([prepared_key(user), earlier_key(user, "fake/1")])]
    keys = [user_prefix(user), *working, *memories, folded_key(user, 0), folded_key(user, 256)]
    assert sorted(keys) == keys


@given(item_keys)
def test_the_partitions_own_records_belong_to_no_user(item: int) -> None:
    user, rest = user_of(name_key(item))
    assert (user, named_item(rest)) == (b"", item)
    for own in (OFFSET, SEGMENT_LENGTH):
        assert user_of(own)[0] == b""
        assert named_item(user_of(own)[1]) is None


@pytest.mark.parametrize("kind", READERS)
def test_a_record_of_another_format_is_refused_by_its_number(kind: str) -> None:
    read, value = READERS[kind]
    newest = 1 if kind in ("working", "name", "number") else FORMAT
    for number in (0, *range(newest + 1, 256)):
        with pytest.raises(StateFormatUnknown, match=f"format {number}; this build reads up to {newest}"):
            read(bytes([number]) + value[1:])


@every_reader
def test_a_record_cut_anywhere_is_corrupted(read: Callable[[bytes], Any], value: bytes) -> None:
    for end in range(len(value)):
        with pytest.raises(StateCorrupted):
            read(value[:end])


@every_reader
def test_bytes_after_a_record_are_corruption(read: Callable[[bytes], Any], value: bytes) -> None:
    with pytest.raises(StateCorrupted):
        read(value + b"\x00")


@given(st.sampled_from(sorted(READERS)), st.binary(max_size=60), st.integers(0, 60))
def test_noise_is_read_or_refused_and_never_anything_else(kind: str, noise: bytes, at: int) -> None:
    read, value = READERS[kind]
    try:
        read(value[: 1 + at] + noise)
    except StateError:
        return


@pytest.mark.parametrize(
    ("read", "value"),
    [(read_name, b"\x01\xa2\xff\xfe"), (read_preference, b"\x01\x95\xa2\xff\xfe\x01\x01\x01\xc4\x00")],
)
def test_text_that_is_not_utf8_is_corruption(read: Callable[[bytes], Any], value: bytes) -> None:
    with pytest.raises(StateCorrupted):
        read(value)


def test_an_item_without_a_time_is_corruption() -> None:
    with pytest.raises(StateCorrupted, match="a working record has 3 numbers"):
        read_working(folded_value([1, 2, 3]))
    with pytest.raises(StateCorrupted, match="a folded segment has 3 numbers"):
        read_folded(b"\x02" + folded_value([1, 2, 3])[1:])


@pytest.mark.parametrize("stamps", [[], [5], [5, 6, 7]])
def test_items_are_never_written_with_more_or_fewer_times(stamps: list[int]) -> None:
    with pytest.raises(ValueError, match="size"):
        working_value([1, 2], stamps)


def rest(key: bytes) -> bytes:
    return user_of(key)[1]


def working(taken: int, *items: int) -> tuple[bytes, bytes]:
    return rest(working_key(b"ann", taken)), working_value(items, [10 * item for item in items])


TWO_FOLDS = Preference("fake/1", 4, 2, 40, b"\x00" * 8)
FOLDED_TWICE = (rest(preference_key(b"ann")), preference_value(TWO_FOLDS))


def test_nothing_stored_is_a_new_user() -> None:
    assert read_user(iter([])) == NEW_USER


def test_working_records_of_what_is_folded_are_passed_over() -> None:
    user = read_user(iter([working(11, 6), working(10, 9, 8), working(7, 7, 7, 7), working(1, 5), FOLDED_TWICE]))
    assert (user.taken, user.folds, unpacked(user.items).tolist(), unpacked(user.times).tolist()) == (
        11,
        2,
        [9, 8, 6],
        [90, 80, 60],
    )
    assert user.ends == (11, 10, 7, 1), "stale ones too, so that the next fold deletes them"
    assert user.preference == TWO_FOLDS


def test_an_empty_working_record_says_that_nothing_came_after_the_fold() -> None:
    user = read_user(iter([working(8), working(6, 1), FOLDED_TWICE]))
    assert (user.taken, user.working, user.ends) == (8, 0, (8, 6))


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ([working(5, 1), working(2, 1, 2)], "ends at 5 with 1 items, but 2 come before it"),
        ([working(3, 1, 2)], "ends at 3 with 2 items, but 0 come before it"),
        ([working(3, 1, 2), working(2, 1, 2)], "ends at 3 with 2 items, but 2 come before it"),
        ([working(10, 1), FOLDED_TWICE], "ends at 10 with 1 items, but 8 come before it"),
        ([working(8, 1), FOLDED_TWICE], "ends at 8 with 1 items, but 8 come before it"),
    ],
)
def test_a_gap_or_an_overlap_is_corruption(records: list[tuple[bytes, bytes]], found: str) -> None:
    with pytest.raises(StateCorrupted, match=found):
        read_user(records)


def test_a_newest_working_record_that_is_folded_already_is_corruption() -> None:
    """How far the user is would be read off its key."""
    with pytest.raises(StateCorrupted, match="newest working record ends at 7, but 8"):
        read_user([working(7, 1), FOLDED_TWICE])


def test_a_preference_memory_without_a_working_record_is_corruption() -> None:
    with pytest.raises(StateCorrupted, match="without a working record"):
        read_user([FOLDED_TWICE])


@given(taken)
def test_packed_integers_are_unpacked(interactions: list[tuple[int, int]]) -> None:
    items = [item for item, _ in interactions]
    assert unpacked(packed(items)).tolist() == items


# --- golden files: bytes that were released once ---


def golden_record(kind: str, says: dict[str, Any]) -> tuple[bytes, bytes]:
    """A record's key and value, made by this build."""
    user = says.get("user", "").encode()
    if kind == "preference":
        memory = bytes.fromhex(says["memory"])
        told = [says[name] for name in ("memory_format", "segment_length", "folds", "as_of")]
        preference = Preference(*told, memory, says["missing"])
        if says["place"] == "serving":
            return preference_key(user), preference_value(preference)
        key = prepared_key(user) if says["place"] == "prepared" else earlier_key(user, preference.memory_format)
        return key, aside_value(preference)
    if kind == "working":
        return working_key(user, says["taken"]), working_value(says["items"], says["times"])
    if kind == "folded":
        return folded_key(user, says["segment"]), folded_value(says["items"], says["times"])
    if kind == "mark":
        return mark_key(says["at"]), mark_value(Mark(**says["mark"]))
    if kind == "one format":
        return ONE_FORMAT, one_format_value(says["memory_format"])
    if kind == "name":
        return name_key(says["item"]), name_value(says["text"])
    return {"offset": OFFSET, "segment length": SEGMENT_LENGTH}[kind], number_value(says["number"])


def golden_reading(kind: str, key: bytes, value: bytes) -> dict[str, Any]:
    """What this build makes of a record."""
    user, rest = user_of(key)
    if kind == "preference":
        told = read_preference(value)
        return {
            "user": user.decode(),
            "memory_format": told.memory_format,
            "segment_length": told.segment_length,
            "folds": told.folds,
            "as_of": told.as_of,
            "memory": told.memory.hex(),
            "missing": told.missing,
            "place": {PREFERENCE: "serving", PREPARED: "prepared"}.get(rest, "earlier"),
        }
    if kind == "working":
        items, stamps = read_working(value)
        return {"user": user.decode(), "taken": taken_of(rest), "items": items, "times": stamps}
    if kind == "folded":
        items, stamps = read_folded(value)
        segment = int.from_bytes(rest[1:], "big")
        return {"user": user.decode(), "segment": segment, "items": items, "times": stamps}
    if kind == "mark":
        return {"at": int.from_bytes(rest[1:], "big"), "mark": msgspec.structs.asdict(read_mark(value))}
    if kind == "one format":
        return {"memory_format": read_one_format(value)}
    if kind == "name":
        return {"item": named_item(rest), "text": read_name(value)}
    return {"number": read_number(value)}


FILES = {path.stem: json.loads(path.read_text()) for path in sorted(GOLDEN.glob("format-*.json"))}
RECORDS = [
    pytest.param(
        record["kind"], bytes.fromhex(record["key"]), bytes.fromhex(record["value"]), record["says"], id=f"{name}-{at}"
    )
    for name, records in FILES.items()
    for at, record in enumerate(records)
]


def test_every_format_has_a_golden_file_with_every_kind_of_record() -> None:
    assert set(FILES) == {f"format-{number}" for number in range(1, FORMAT + 1)}
    kinds = {name: {record["kind"] for record in records} for name, records in FILES.items()}
    assert kinds == {
        "format-1": {"preference", "working", "folded", "name", "offset", "segment length"},
        "format-2": {"preference", "folded", "mark", "one format"},
    }


@pytest.mark.parametrize(("kind", "key", "value", "says"), RECORDS)
def test_golden_bytes_still_say_the_same(kind: str, key: bytes, value: bytes, says: dict[str, Any]) -> None:
    assert golden_reading(kind, key, value) == says


@pytest.mark.parametrize(("kind", "key", "value", "says"), RECORDS)
def test_this_build_writes_the_golden_bytes_of_both_formats(
    kind: str, key: bytes, value: bytes, says: dict[str, Any]
) -> None:
    """A value has the first format that can express it."""
    assert golden_record(kind, says) == (key, value)
