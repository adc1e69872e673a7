"""The bytes of state: what was written is read back, what cannot be read is named, and every format ever written stays readable."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state import codec
from state.codec import (
    FOLDED,
    FORMAT,
    OFFSET,
    PREFERENCE,
    WORKING,
    folded_key,
    folded_value,
    name_key,
    name_value,
    named_item,
    offset_value,
    preference_key,
    preference_value,
    read_folded,
    read_name,
    read_offset,
    read_preference,
    read_user,
    read_working,
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
    segment_length=st.integers(1, codec.MAX_SEGMENT_LENGTH),
    folds=st.integers(1, 2**32 - 1),
    as_of=times,
    memory=st.binary(max_size=2048),
)

READERS: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "preference": (read_preference, preference_value(Preference("rec2pm-o/1", 50, 3, 978_300_760_000, b"\x00\x01\x02\x03"))),
    "working": (read_working, working_value(3, [1193, 2**62 + 5], [978_300_760_000, 978_300_761_000])),
    "folded": (read_folded, folded_value([1193, 661, 2**62 + 5])),
    "name": (read_name, name_value("song-é")),
    "offset": (read_offset, offset_value(150_032)),
}
every_reader = pytest.mark.parametrize(("read", "value"), READERS.values(), ids=READERS)


@given(preferences)
def test_a_preference_memory_is_read_back(preference: Preference) -> None:
    assert read_preference(preference_value(preference)) == preference


@given(st.integers(0, 2**32 - 1), taken)
def test_a_working_record_is_read_back_whatever_the_order_of_its_times(segment: int, interactions: list[tuple[int, int]]) -> None:
    items, stamps = [item for item, _ in interactions], [time for _, time in interactions]
    assert read_working(working_value(segment, items, stamps)) == (segment, items, stamps)


@given(st.lists(item_keys), st.text(), st.integers(0, 2**63 - 1))
def test_folded_segments_names_and_offsets_are_read_back(items: list[int], text: str, offset: int) -> None:
    assert read_folded(folded_value(items)) == items
    assert read_name(name_value(text)) == text
    assert read_offset(offset_value(offset)) == offset


@given(user_ids, st.integers(0, codec.MAX_SEGMENT_LENGTH - 1), st.integers(0, 2**32 - 1))
def test_a_key_says_whose_it_is_and_of_what_kind(user: bytes, position: int, segment: int) -> None:
    prefix = user_prefix(user)
    assert user_of(preference_key(prefix)) == (user, PREFERENCE)
    assert user_of(working_key(prefix, position)) == (user, WORKING + position.to_bytes(2, "big"))
    assert user_of(folded_key(prefix, segment)) == (user, FOLDED + segment.to_bytes(4, "big"))


@given(user_ids, user_ids)
def test_no_users_keys_are_a_prefix_of_anothers(one: bytes, other: bytes) -> None:
    assert user_prefix(other).startswith(user_prefix(one)) == (one == other)


@given(user_ids, st.lists(st.integers(0, codec.MAX_SEGMENT_LENGTH - 1), min_size=2, max_size=9))
def test_a_users_keys_sort_preference_then_working_by_position_then_folded(user: bytes, positions: list[int]) -> None:
    prefix = user_prefix(user)
    keys = [preference_key(prefix), *(working_key(prefix, at) for at in sorted(positions)), folded_key(prefix, 0), folded_key(prefix, 256)]
    assert sorted(keys) == keys


@given(item_keys)
def test_the_partitions_own_records_belong_to_no_user(item: int) -> None:
    user, rest = user_of(name_key(item))
    assert (user, named_item(rest)) == (b"", item)
    assert user_of(OFFSET)[0] == b""
    assert named_item(user_of(OFFSET)[1]) is None


@every_reader
def test_a_record_of_another_format_is_refused_by_its_number(read: Callable[[bytes], Any], value: bytes) -> None:
    for number in range(256):
        if number != FORMAT:
            with pytest.raises(StateFormatUnknown, match=f"format {number}; this build reads up to {FORMAT}"):
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
    ("read", "value"), [(read_name, b"\x01\xa2\xff\xfe"), (read_preference, b"\x01\x95\xa2\xff\xfe\x01\x01\x01\xc4\x00")]
)
def test_text_that_is_not_utf8_is_corruption(read: Callable[[bytes], Any], value: bytes) -> None:
    with pytest.raises(StateCorrupted):
        read(value)


def test_as_many_times_as_items_or_the_record_is_corrupted() -> None:
    with pytest.raises(StateCorrupted, match="2 items and 1 times"):
        read_working(working_value(0, [1, 2], [5]))


def rest(key: bytes) -> bytes:
    return user_of(key)[1]


ANN = user_prefix(b"ann")
TWO_FOLDS = Preference("fake/1", 4, 2, 40, b"\x00" * 8)


def test_nothing_stored_is_a_new_user() -> None:
    assert read_user(iter([])) == NEW_USER


def test_working_records_of_an_older_segment_are_passed_over() -> None:
    user = read_user(
        iter(
            [
                (rest(preference_key(ANN)), preference_value(TWO_FOLDS)),
                (rest(working_key(ANN, 0)), working_value(2, [9, 8], [50, 60])),
                (rest(working_key(ANN, 1)), working_value(1, [7, 7, 7], [1, 2, 3])),
                (rest(working_key(ANN, 2)), working_value(2, [6], [70])),
                (rest(working_key(ANN, 3)), working_value(0, [5], [4])),
            ]
        )
    )
    assert (user.folds, unpacked(user.items).tolist(), unpacked(user.times).tolist()) == (2, [9, 8, 6], [50, 60, 70])
    assert user.positions == (0, 1, 2, 3), "stale ones too, so that the next fold deletes them"
    assert user.preference == TWO_FOLDS


@pytest.mark.parametrize(
    ("positions", "found"),
    [([0, 3], "starts at 3, but 2 items come before it"), ([1], "starts at 1, but 0 items"), ([0, 1], "starts at 1, but 2 items")],
)
def test_a_gap_or_an_overlap_of_positions_is_corruption(positions: list[int], found: str) -> None:
    with pytest.raises(StateCorrupted, match=found):
        read_user((rest(working_key(ANN, at)), working_value(0, [1, 2], [10, 20])) for at in positions)


def test_a_working_record_ahead_of_the_preference_memory_is_corruption() -> None:
    with pytest.raises(StateCorrupted, match="segment 3, but only 2 segments are folded"):
        read_user(iter([(rest(preference_key(ANN)), preference_value(TWO_FOLDS)), (rest(working_key(ANN, 0)), working_value(3, [1], [1]))]))


@given(taken)
def test_packed_integers_are_unpacked(interactions: list[tuple[int, int]]) -> None:
    items = [item for item, _ in interactions]
    assert unpacked(packed(items)).tolist() == items


# --- golden files: bytes that were released once ---


def golden_record(kind: str, says: dict[str, Any]) -> tuple[bytes, bytes]:
    """A record's key and value, made by this build."""
    prefix = user_prefix(says["user"].encode()) if "user" in says else b""
    if kind == "preference":
        memory = bytes.fromhex(says["memory"])
        preference = Preference(says["memory_format"], says["segment_length"], says["folds"], says["as_of"], memory)
        return preference_key(prefix), preference_value(preference)
    if kind == "working":
        return working_key(prefix, says["position"]), working_value(says["segment"], says["items"], says["times"])
    if kind == "folded":
        return folded_key(prefix, says["segment"]), folded_value(says["items"])
    if kind == "name":
        return name_key(says["item"]), name_value(says["text"])
    assert kind == "offset"
    return OFFSET, offset_value(says["offset"])


def golden_reading(kind: str, key: bytes, value: bytes) -> dict[str, Any]:
    """What this build makes of a record."""
    user, rest = user_of(key)
    number = int.from_bytes(rest[1:], "big")
    if kind == "preference":
        told = read_preference(value)
        return {
            "user": user.decode(),
            "memory_format": told.memory_format,
            "segment_length": told.segment_length,
            "folds": told.folds,
            "as_of": told.as_of,
            "memory": told.memory.hex(),
        }
    if kind == "working":
        segment, items, stamps = read_working(value)
        return {"user": user.decode(), "position": number, "segment": segment, "items": items, "times": stamps}
    if kind == "folded":
        return {"user": user.decode(), "segment": number, "items": read_folded(value)}
    if kind == "name":
        return {"item": named_item(rest), "text": read_name(value)}
    return {"offset": read_offset(value)}


FILES = {path.stem: json.loads(path.read_text()) for path in sorted(GOLDEN.glob("format-*.json"))}
RECORDS = [
    pytest.param(record["kind"], bytes.fromhex(record["key"]), bytes.fromhex(record["value"]), record["says"], id=f"{name}-{at}")
    for name, records in FILES.items()
    for at, record in enumerate(records)
]


def test_every_format_has_a_golden_file_with_every_kind_of_record() -> None:
    assert set(FILES) == {f"format-{number}" for number in range(1, FORMAT + 1)}
    for name, records in FILES.items():
        assert {record["kind"] for record in records} == {"preference", "working", "folded", "name", "offset"}, name


@pytest.mark.parametrize(("kind", "key", "value", "says"), RECORDS)
def test_golden_bytes_still_say_the_same(kind: str, key: bytes, value: bytes, says: dict[str, Any]) -> None:
    assert golden_reading(kind, key, value) == says


@pytest.mark.parametrize(("kind", "key", "value", "says"), [record for record in RECORDS if record.values[2][0] == FORMAT])
def test_this_build_writes_the_golden_bytes_of_its_format(kind: str, key: bytes, value: bytes, says: dict[str, Any]) -> None:
    assert golden_record(kind, says) == (key, value)
