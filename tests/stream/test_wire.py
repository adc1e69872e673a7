"""The bytes on the topics: what other people's programs decode, and how often a dead letter was tried."""

import json

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import MalformedInteraction
from stream.wire import (
    ATTEMPTS_HEADER,
    Header,
    Interaction,
    Recommendation,
    dead_letter,
    interaction,
    recommendation_as_json,
    recommendation_as_msgpack,
)
from tests.fakes import FakeRecord

ids = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(min_size=1, max_size=60))
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


@given(ids, st.one_of(st.none(), moments))
def test_an_interaction_is_the_same_as_messagepack_and_as_json(item: int | str, ts: int | None) -> None:
    told = {"item": item, "type": "view", "unknown": [1, {"deep": None}], **({} if ts is None else {"ts": ts})}
    expected = Interaction(item, ts)
    assert interaction(msgpack.packb(told)) == expected
    assert interaction(json.dumps(told).encode()) == expected
    assert interaction(json.dumps(told, ensure_ascii=False, indent=2).encode()) == expected


def test_a_large_messagepack_map_is_a_map_too() -> None:
    wide = {f"field-{at}": at for at in range(70_000)}
    assert interaction(msgpack.packb({"item": 7, **wide})) == Interaction(7)
    assert interaction(msgpack.packb({"item": 7, **{str(at): at for at in range(20)}})) == Interaction(7)


def attempts(*headers: Header) -> tuple[list[Header], bytes | None]:
    letter = dead_letter(FakeRecord(b"ann", b"?", _headers=headers), "interactions", MalformedInteraction("no"))
    tried = [value for name, value in letter.headers if name == ATTEMPTS_HEADER]
    assert len(tried) == 1, "one counter, however often the record came back"
    return letter.headers, tried[0]


@pytest.mark.parametrize(
    ("before", "now"),
    [((), b"1"), ((b"1",), b"2"), ((b"9",), b"10"), ((b"1", b"4"), b"5"), ((b"x",), b"1"), ((None,), b"1"), ((b"-3",), b"1")],
)
def test_attempts_are_counted_up_from_the_last_counter_that_can_be_read(before: tuple[bytes | None, ...], now: bytes) -> None:
    assert attempts(*((ATTEMPTS_HEADER, each) for each in before))[1] == now


def test_a_counter_of_thousands_of_digits_does_not_stop_the_stream() -> None:
    assert attempts((ATTEMPTS_HEADER, b"9" * 5_000))[1] == b"1"


def test_original_headers_come_first_and_a_record_that_comes_back_keeps_its_first_reason() -> None:
    first, _ = attempts(("trace", b"t"), ("trace", None))
    assert first[:2] == [("trace", b"t"), ("trace", None)]
    second, tried = attempts(*first)
    assert second[: len(first) - 1] == first[:-1]
    assert tried == b"2"
