"""`rec2pm produce` writes what a worker with the same settings reads."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ids import HIGHEST, LOWEST
from model.times import EARLIEST_MS, LATEST_MS, PER_S, TimeRule
from stream.commands.send_log import Shape
from stream.event import EventReader, Fields
from stream.settings import Settings

IDS = st.integers(LOWEST, HIGHEST) | st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60)
SHOP = {
    "REC2PM_ITEM_FIELD": "product.id",
    "REC2PM_TIME_FIELD": "product.at",
    "REC2PM_USER_FIELD": "who",
    "REC2PM_EVENT_FIELD": "type",
    "REC2PM_EVENTS": "view,purchase",
}


@given(IDS, IDS, st.integers(EARLIEST_MS, LATEST_MS - 1), st.sampled_from([None, *PER_S]), st.booleans())
def test_a_worker_reads_the_item_and_the_time_that_were_sent(
    user: int | str, item: int | str, ms: int, unit: str | None, shop: bool
) -> None:
    settings = Settings.from_environ({**(SHOP if shop else {}), "REC2PM_TIME_UNIT": unit or "auto"})
    value = Shape(settings.fields, settings.times).value(user, item, ms)
    assert EventReader(settings.fields, settings.times).read(value, str(user).encode()) == (item, ms)


def test_a_record_has_the_fields_that_the_settings_name() -> None:
    settings = Settings.from_environ(SHOP)
    shape = Shape(settings.fields, settings.times)
    assert msgspec.msgpack.decode(shape.value("ann", 7, 1704110400000, "view")) == {
        "product": {"id": 7, "at": 1704110400000},
        "who": "ann",
        "type": "view",
    }
    assert msgspec.msgpack.decode(shape.value("ann", 7, 1704110400000))["type"] == "purchase"
    assert msgspec.msgpack.decode(Shape(Fields(), TimeRule()).value("ann", 7, 1704110400000)) == {
        "item": 7,
        "ts": 1704110400000,
    }


@pytest.mark.parametrize("ms", [5, 10**11 - 1])
def test_a_time_that_would_be_taken_for_seconds_is_written_as_text(ms: int) -> None:
    rule = TimeRule(None, 0, 10**14)
    value = Shape(Fields(), rule).value("ann", 7, ms)
    assert EventReader(Fields(), rule).read(value, b"ann") == (7, ms)
