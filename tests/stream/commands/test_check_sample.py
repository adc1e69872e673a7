"""What `topics check` says of a sample: nothing wrong is passed, and what is right is not complained about."""

import json
import struct
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.commands.check_sample import Line, sample_lines
from stream.kafka.known_partitioners import Partitioner
from stream.kafka.partitioner import partitions_of
from stream.kafka.sample import Sample, Sampled, shared_out
from stream.settings import Settings

WIDTH = 4
NOON = 1_767_225_600_000


def event(item: object = 7, ts: object = NOON) -> bytes:
    return bytes(msgpack.packb({"item": item, "ts": ts}))


def sample(
    keys: list[Any],
    values: list[bytes | None] | None = None,
    partitioner: Partitioner = "murmur2",
    *,
    complete: bool = True,
) -> Sample:
    places = partitions_of([key or b"?" for key in keys], WIDTH, partitioner).tolist() if keys else []
    records = [
        Sampled(number, key, value, NOON)
        for number, key, value in zip(places, keys, values or [event()] * len(keys), strict=True)
    ]
    return Sample(records, WIDTH, complete)


def lines(given: Sample, **settings: Any) -> dict[str, Line]:
    found = sample_lines(given, Settings(**settings))
    assert all(line.text.isprintable() and len(line.text) < 900 for line in found)
    return {line.text.split(":")[0]: line for line in found}


TEXTS = [b"%d" % user for user in range(200)]
LONGS = [struct.pack(">q", user) for user in range(200)]


def test_a_topic_that_fits_the_settings_passes_in_every_subject() -> None:
    found = lines(sample(TEXTS))
    assert list(found) == ["keys", "partitions", "times", "items", "refused"]
    assert {line.severity for line in found.values()} == {"pass"}
    assert found["keys"].text == ("keys: 200 users in the newest 200 records of interactions (REC2PM_KEY_FORMAT=utf8)")
    assert found["partitions"].text == "partitions: 200 keys, each where murmur2 sends it"
    assert found["times"].text == "times: 200 in milliseconds, from 2026-01-01 to 2026-01-01"
    assert found["items"].text == "items: 1 item in 200 events as integers"


@pytest.mark.parametrize(("complete", "severity"), [(True, "pass"), (False, "warning")])
def test_an_empty_topic_is_said_to_be_empty(complete: bool, severity: str) -> None:
    (line,) = sample_lines(sample([], complete=complete), Settings())
    assert line.severity == severity


@pytest.mark.parametrize(
    ("keys", "form", "severity", "said"),
    [
        (LONGS, "utf8", "warning", "200 of the newest 200 records of interactions do not fit REC2PM_KEY_FORMAT=utf8. All keys fit long: set"),
        (LONGS, "long", "pass", "200 users"),
        (LONGS, "int", "warning", "All keys fit long: set REC2PM_KEY_FORMAT=long"),
        ([struct.pack(">i", user) for user in range(9)], "utf8", "warning", "All keys fit int: set"),
        ([b'"%d"' % user for user in range(9)], "utf8", "warning", "REC2PM_KEY_FORMAT=json"),
        ([b'"%d"' % user for user in range(9)], "json", "pass", "9 users"),
        (TEXTS, "json", "warning", "All keys fit utf8: set REC2PM_KEY_FORMAT=utf8"),
        ([b"user%04d" % user for user in range(9)], "long", "warning", "takes text for numbers. All keys fit utf8"),
        ([None] * 5, "utf8", "warning", "5 of the newest 5 records of interactions have no user id as their key: 5 × key is null"),
        ([*TEXTS, None, b""], "utf8", "warning", "2 of the newest 202 records"),
        ([*TEXTS, b"\xff\xfe"], "utf8", "warning", "1 × key is not UTF-8"),
        ([b"\0\0\0\0\x07\x0auser1"] * 9, "utf8", "warning", "Confluent's wire format, schema id 7"),
    ],
)  # fmt: skip
def test_the_format_of_keys_is_found(keys: list[bytes | None], form: str, severity: str, said: str) -> None:
    line = lines(sample(keys), key_format=form)["keys"]
    assert (line.severity, said in line.text) == (severity, True), line.text


def test_another_partitioner_is_found_for_keys_of_any_form() -> None:
    for keys in (TEXTS, LONGS):
        line = lines(sample(keys, partitioner="crc32"))["partitions"]
        assert line.severity == "warning"
        assert "set REC2PM_PARTITIONER=crc32" in line.text
        assert lines(sample(keys, partitioner="crc32"), partitioner="crc32")["partitions"].severity == "pass"
    assert lines(sample(TEXTS, partitioner="crc32"), partitioner="ignore")["partitions"].severity == "pass"


@pytest.mark.parametrize(
    ("times", "unit", "severity", "said"),
    [
        ([NOON], "auto", "pass", "in milliseconds"),
        ([NOON // 1000], "auto", "pass", "in seconds, from 2026-01-01"),
        ([NOON * 1000], "auto", "pass", "in microseconds, from 2026-01-01"),
        ([NOON * 10**6], "auto", "pass", "in nanoseconds, from 2026-01-01"),
        ([str(NOON)], "auto", "pass", "in milliseconds"),
        (["2026-01-01T00:00:00Z"], "auto", "pass", "in ISO 8601"),
        ([NOON, NOON // 1000], "auto", "warning", "producers disagree about `ts`"),
        ([NOON // 1000], "ms", "warning", "are not plausible, one is 1767225600. It was taken for milliseconds (REC2PM_TIME_UNIT=ms). By their size there are 100 in seconds"),
        ([NOON, 7], "auto", "warning", "50 of 100 in `ts` are not plausible, one is 7."),
        ([None], "auto", "pass", "no event has `ts` (REC2PM_TIME_FIELD)"),
        ([None, NOON], "auto", "pass", "50 events have none"),
    ],
)  # fmt: skip
def test_the_unit_of_times_is_found(times: list[object], unit: str, severity: str, said: str) -> None:
    values = [event(ts=times[at % len(times)]) for at in range(100)]
    line = lines(sample(TEXTS[:100], values), time_unit=unit)["times"]
    assert (line.severity, said in line.text) == (severity, True), line.text


def test_a_time_may_be_a_timestamp_of_messagepack() -> None:
    found = lines(sample(TEXTS, [event(ts=msgpack.Timestamp(NOON // 1000))] * len(TEXTS)))
    assert found["times"].text.startswith("times: 200 in timestamps of MessagePack, from ")
    assert found["times"].severity == "pass"


def test_kinds_of_items_are_told_apart() -> None:
    values = [event(item) for item in (1, 2, 2, "b-17", "42", "00042")]
    assert lines(sample(TEXTS[:6], values))["items"].text == (
        "items: 5 items in 3 events as integers, 1 event as text, 1 event as text of digits, "
        "1 event as text of digits with leading zeros, which is no integer"
    )


@pytest.mark.parametrize(
    ("good", "bad", "limit", "severity"),
    [(200, 0, 0.5, "pass"), (100, 99, 0.5, "warning"), (99, 100, 0.5, "error"), (0, 50, 0.5, "warning"), (99, 100, 1.0, "warning")],
)  # fmt: skip
def test_what_a_worker_would_refuse_is_counted_and_an_error_if_it_would_stop(
    good: int, bad: int, limit: float, severity: str
) -> None:
    values = [event()] * good + [b"no map"] * bad
    line = lines(sample(TEXTS[: good + bad], values), max_refused=limit)["refused"]
    assert line.severity == severity
    if bad:
        assert f"refused: {bad} of the newest {good + bad} records" in line.text
        assert f"{bad} × value starts with byte 0x6e" in line.text


def test_reasons_that_differ_in_numbers_are_one() -> None:
    values: list[bytes | None] = [json.dumps({"item": "x" * (300 + at)}).encode() for at in range(9)]
    assert "9 × `item` has 300 bytes" in lines(sample(TEXTS[:9], values))["refused"].text


def test_null_values_are_nothing_to_complain_about() -> None:
    found = lines(sample(TEXTS[:3], [None] * 3))
    assert {line.severity for line in found.values()} == {"pass"}


def test_events_that_are_all_passed_over_are_said() -> None:
    values: list[bytes | None] = [json.dumps({"item": 7, "type": "login"}).encode()] * 9
    found = lines(sample(TEXTS[:9], values), event_field="type", events="view")
    assert found["events"].severity == "warning"
    values[0] = json.dumps({"item": 7, "type": "view"}).encode()
    assert (
        "8 other events are passed over"
        in lines(sample(TEXTS[:9], values), event_field="type", events="view")["items"].text
    )


@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.binary(max_size=20)), st.one_of(st.none(), st.binary(max_size=40))),
        max_size=30,
    )
)
def test_any_records_get_lines_and_no_traceback(records: list[tuple[bytes | None, bytes | None]]) -> None:
    made = sample([key for key, _ in records], [value for _, value in records])
    for form in ("utf8", "json", "long", "int", "uuid"):
        lines(made, key_format=form)


@given(st.dictionaries(st.integers(0, 50), st.integers(0, 3000), max_size=20), st.integers(0, 2000))
def test_partitions_share_a_sample_as_evenly_as_their_sizes_allow(sizes: dict[int, int], count: int) -> None:
    shares = shared_out(sizes, count)
    assert sum(shares.values()) == min(count, sum(sizes.values()))
    assert all(0 <= shares[number] <= size for number, size in sizes.items())
    full = [shares[number] for number, size in sizes.items() if shares[number] < size]
    assert not full or max(full) - min(full) <= 1
    assert not full or all(shares[number] <= max(full) + 1 for number in sizes)
