"""The newest interactions of the input, as a worker would read them."""

import json

import pytest

from stream.kafka.sample import Sample, Sampled
from stream.promotion.newest import Newest, as_interactions
from stream.settings import Settings

AT = 1_767_225_600_000


def _sampled(key: bytes | None, value: object, partition: int = 0) -> Sampled:
    return Sampled(partition, key, value if value is None else json.dumps(value).encode(), AT)


def _read(*records: Sampled, **settings: str) -> Newest:
    given = {f"REC2PM_{name}": value for name, value in settings.items()}
    return as_interactions(Sample(records, 2, complete=True), Settings.from_environ(given))


def test_interactions_keep_their_order_and_their_times() -> None:
    found = _read(
        _sampled(b"ann", {"item": 1, "ts": AT - 5}),
        _sampled(b"bob", {"item": "two"}),
        _sampled(b"ann", {"item": 3, "ts": 7}),
    )
    assert (found.users, found.items) == ((b"ann", b"bob", b"ann"), (1, "two", 3))
    assert found.times == (AT - 5, AT, AT), "without a plausible time, that of the record counts"


@pytest.mark.parametrize(
    "record",
    [
        _sampled(None, {"item": 1}),
        _sampled(b"ann", None),
        _sampled(b"ann", {"ts": 5}),
        _sampled(b"ann", "hello"),
        Sampled(0, b"ann", b"\xff\x00", AT),
    ],
    ids=["no key", "a null value", "no item", "no map", "no format"],
)
def test_what_a_worker_would_refuse_or_forget_is_no_interaction(record: Sampled) -> None:
    assert _read(record, _sampled(b"bob", {"item": 2})).items == (2,)


def test_events_of_other_kinds_are_passed_over() -> None:
    records = [_sampled(b"ann", {"item": at, "kind": kind}) for at, kind in enumerate(["view", "search", "view"])]
    assert _read(*records, EVENT_FIELD="kind", EVENTS="view").items == (0, 2)
