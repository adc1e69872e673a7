"""The bytes on the topics: what other people's programs decode, and how often a dead letter was tried."""

import json
from hashlib import sha256

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream.errors import MalformedInteraction
from stream.wire import (
    ATTEMPTS_HEADER,
    LETTER_HEADERS_BYTES,
    TIMESTAMP_HEADER,
    Header,
    Recommendation,
    dead_letter,
    letter_bytes,
    recommendation_as_json,
    recommendation_as_msgpack,
    reduced,
    refusal,
)
from tests.fakes import FakeRecord

ids = st.one_of(st.integers(-(2**63), 2**64 - 1), st.text(min_size=1, max_size=60))
moments = st.integers(0, 2**53)
recommendations = st.builds(
    Recommendation,
    items=st.lists(ids, min_size=1, max_size=20),
    scores=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=20),
    as_of=moments,
    partition=st.integers(0, 10_000),
    offset=st.integers(0, 2**63 - 1),
    taken=st.integers(1, 2**40),
    folds=st.integers(0, 2**32),
    model=st.just("rec2pm@7"),
    source=st.sampled_from(["memory", "working", "popular"]),
)
FIELDS = ["items", "scores", "as_of", "partition", "offset", "taken", "folds", "model", "source"]


@given(recommendations)
def test_a_recommendation_is_a_map_that_any_messagepack_library_reads(made: Recommendation) -> None:
    told = msgpack.unpackb(recommendation_as_msgpack(made))
    assert list(told) == FIELDS
    assert Recommendation(**told) == made


@given(recommendations)
def test_a_recommendation_is_a_map_that_any_json_library_reads(made: Recommendation) -> None:
    told = json.loads(recommendation_as_json(made))
    assert list(told) == FIELDS
    assert Recommendation(**told) == made


def attempts(*headers: Header) -> tuple[list[Header], bytes | None]:
    letter = dead_letter(FakeRecord(b"ann", b"?", _headers=headers), "interactions", MalformedInteraction("no"))
    tried = [value for name, value in letter.headers if name == ATTEMPTS_HEADER]
    assert len(tried) == 1, "one counter, however often the record came back"
    return letter.headers, tried[0]


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ((), b"1"),
        ((b"1",), b"2"),
        ((b"9",), b"10"),
        ((b"1", b"4"), b"5"),
        ((b"x",), b"1"),
        ((None,), b"1"),
        ((b"-3",), b"1"),
    ],
)
def test_attempts_are_counted_up_from_the_last_counter_that_can_be_read(
    before: tuple[bytes | None, ...], now: bytes
) -> None:
    assert attempts(*((ATTEMPTS_HEADER, each) for each in before))[1] == now


def test_a_counter_of_thousands_of_digits_does_not_stop_the_stream() -> None:
    assert attempts((ATTEMPTS_HEADER, b"9" * 5_000))[1] == b"1"


def test_original_headers_come_first_and_a_record_that_comes_back_keeps_its_first_reason() -> None:
    first, _ = attempts(("trace", b"t"), ("trace", None))
    assert first[:2] == [("trace", b"t"), ("trace", None)]
    second, tried = attempts(*first)
    assert second[: len(first) - 1] == first[:-1]
    assert tried == b"2"


NAMES = ["trace", ATTEMPTS_HEADER, TIMESTAMP_HEADER, "__streams.errors.offset", "__streams.errors.message"]
header_lists = st.lists(
    st.tuples(st.sampled_from(NAMES), st.one_of(st.none(), st.just(b"7"), st.binary(max_size=9))), max_size=9
)


@example([], 0, 2**63 - 1, 0, "")
@given(header_lists, st.integers(0, 10_000), st.integers(0, 2**63 - 1), st.integers(0, 2**53), st.text(max_size=30))
def test_a_dead_letter_tells_its_reason_and_gives_the_original_headers_back(
    headers: list[Header], partition: int, offset: int, timestamp: int, reason: str
) -> None:
    record = FakeRecord(b"ann", b"?", partition, offset, timestamp, tuple(headers))
    letter = dead_letter(record, "interactions", MalformedInteraction(reason))
    told = refusal(letter.headers)
    assert told is not None
    assert (told.exception, told.message, told.topic) == ("MalformedInteraction", reason, "interactions")
    assert (told.partition, told.offset, told.timestamp) == (partition, offset, timestamp)
    assert told.headers == [(name, value) for name, value in headers if name != ATTEMPTS_HEADER], (
        "also those that are named like ours"
    )


def test_a_dead_letter_that_is_sent_in_and_refused_again_counts_on_and_keeps_the_original_headers() -> None:
    headers: tuple[Header, ...] = (("trace", b"t"), (TIMESTAMP_HEADER, b"not ours"))
    for attempt in (1, 2, 3):
        letter = dead_letter(FakeRecord(b"ann", b"?", _headers=headers), "interactions", MalformedInteraction("no"))
        told = refusal(letter.headers)
        assert told is not None
        assert (told.attempts, told.headers) == (attempt, [("trace", b"t"), (TIMESTAMP_HEADER, b"not ours")])
        headers = (*told.headers, (ATTEMPTS_HEADER, str(told.attempts).encode()))


def test_a_letter_from_before_timestamps_were_kept_is_read_without_one() -> None:
    letter = dead_letter(FakeRecord(b"ann", b"?"), "interactions", MalformedInteraction("no"))
    told = refusal([header for header in letter.headers if header[0] != TIMESTAMP_HEADER])
    assert told is not None
    assert (told.timestamp, told.attempts) == (None, 1)


def test_a_record_without_a_timestamp_is_a_letter_without_one() -> None:
    class Timeless(FakeRecord):
        def timestamp(self) -> tuple[int, int]:
            return 0, -1

    told = refusal(dead_letter(Timeless(b"ann", b"?"), "interactions", MalformedInteraction("no")).headers)
    assert told is not None
    assert told.timestamp is None


@pytest.mark.parametrize(
    "headers", [[], [("trace", b"t")], [(ATTEMPTS_HEADER, b"1")], [(TIMESTAMP_HEADER, b"1"), (ATTEMPTS_HEADER, b"1")]]
)
def test_headers_of_somebody_else_are_not_taken_for_a_dead_letters(headers: list[Header]) -> None:
    assert refusal(headers) is None


parts = st.one_of(st.none(), st.binary(max_size=50), st.integers(0, 30_000).map(lambda size: b"x" * size))


@given(parts, parts, header_lists, st.integers(0, 40_000))
def test_a_reduced_letter_says_what_it_lacks_and_keeps_the_rest_and_its_reason(
    key: bytes | None, value: bytes | None, headers: list[Header], limit: int
) -> None:
    letter = dead_letter(FakeRecord(key, value, 3, 9, 77, tuple(headers)), "in", MalformedInteraction("no"))
    whole = refusal(letter.headers)
    smaller = reduced(letter, limit)
    told = refusal(smaller.headers)
    assert whole is not None
    assert told is not None
    assert (told.message, told.topic, told.partition, told.offset) == ("no", "in", 3, 9)
    assert (told.timestamp, told.attempts) == (77, whole.attempts)
    had = {
        "key": key or b"",
        "value": value or b"",
        "headers": b"".join(name.encode() + (data or b"") for name, data in whole.headers),
    }
    lacks = {each.part: (each.size, each.sha256) for each in told.left_out}
    assert lacks == {part: (len(had[part]), sha256(had[part]).hexdigest()) for part in lacks}
    assert smaller.key == (None if "key" in lacks else key)
    assert smaller.value == (None if "value" in lacks else value)
    assert told.headers == ([] if "headers" in lacks else whole.headers)
    assert len(lacks) == len(told.left_out)
    assert letter_bytes(smaller) <= max(limit, LETTER_HEADERS_BYTES)
    assert bool(lacks) == any(had.values()), "it was refused as it was: something has to go"
    if len(lacks) > 1:
        assert letter_bytes(smaller) + min(size for size, _ in lacks.values()) > limit - 200, "no more than needed"


def test_a_reader_that_does_not_know_reduced_letters_takes_them_for_no_dead_letter() -> None:
    """It would send a null value, which forgets the user."""
    letter = dead_letter(FakeRecord(b"ann", b"x" * 9000), "in", MalformedInteraction("no"))
    names = [name for name, _ in reduced(letter, 10).headers]
    at = names.index("rec2pm.value.size")
    assert names[at - 1].startswith("__streams.errors."), "before the headers that such a reader takes from the end"
    assert names[-2:] == [TIMESTAMP_HEADER, ATTEMPTS_HEADER]


@given(st.text(max_size=4000), st.text(max_size=300))
def test_the_headers_of_a_letter_stay_below_what_is_reserved_for_them(reason: str, topic: str) -> None:
    record = FakeRecord(None, None, 2**31 - 1, 2**63 - 1, 2**53)
    letter = dead_letter(record, topic[:249], MalformedInteraction(reason * 9 + "\ud800"))
    assert letter_bytes(letter) < LETTER_HEADERS_BYTES
