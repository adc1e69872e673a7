"""What a record's value means: the field by field reading decides, and the compiled decoder agrees with it."""

import json
import math
import re
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model.ids import checked
from model.times import EARLIEST_MS, LATEST_MS, TimeRule
from stream.errors import MalformedInteraction
from stream.event import EventReader, Fields, Implausible, Reading

NOON = 1_704_110_400_000
SHOP = Fields(("product", "id"), ("at",), ("who", "id"), ("type",), frozenset({"view", "purchase", "3"}))

ids = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=60),
)
moments = st.integers(EARLIEST_MS, LATEST_MS - 1)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.sampled_from(["", "x" * 256, "é" * 128, "2024-01-01T12:00:00Z", "1704110400", 1704110400, NOON, NOON * 1000, 5]),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)
kinds = st.one_of(st.sampled_from(["view", "purchase", "login", "", None, 3]), anything)
plain_maps = st.fixed_dictionaries({}, optional={"item": anything, "ts": anything, "x": anything, "y": anything})
shop_maps = st.fixed_dictionaries(
    {},
    optional={
        "product": st.one_of(anything, st.fixed_dictionaries({}, optional={"id": anything, "price": anything})),
        "at": anything,
        "who": st.one_of(anything, st.fixed_dictionaries({}, optional={"id": st.one_of(st.just("ann"), anything)})),
        "type": kinds,
        "x": anything,
    },
)


def said(reader: EventReader, value: bytes) -> Reading | str | None:
    try:
        return reader.read(value, b"ann")
    except MalformedInteraction as error:
        return str(error)


def by_hand(fields: Fields, event: dict[str, Any]) -> Reading | str | None:
    """The same in plain words, on the map that both encodings stand for."""

    def at(path: tuple[str, ...] | None) -> Any:
        found: Any = event
        for name in path or ():
            if not isinstance(found, dict) or name not in found:
                return LookupError
            found = found[name]
        return found

    kind = at(fields.event)
    if fields.event:
        if not isinstance(kind, str | int) or isinstance(kind, bool):
            return "refused"
        if str(kind) not in fields.events:
            return None
    try:
        if fields.user and str(checked(at(fields.user))) != "ann":
            return "refused"
        item = checked(at(fields.item))
    except ValueError:
        return "refused"
    inner: Any = event
    for name in fields.time[:-1]:
        if not isinstance(inner, dict):
            return "refused"
        inner = inner.get(name)
    time = at(fields.time)
    if time is None or time is LookupError:
        return item, None
    try:
        ms = TimeRule().milliseconds(time)
    except ValueError:
        return "refused"
    return item, Implausible(time) if ms is None else ms


def same(found: Reading | str | None, expected: Reading | str | None) -> bool:
    if isinstance(expected, str):
        return isinstance(found, str)
    # A NaN is not equal to itself.
    return str(found) == str(expected)


@pytest.mark.parametrize("fields", [Fields(), SHOP], ids=["plain", "shop"])
@given(data=st.data())
def test_both_encodings_mean_what_the_map_means(fields: Fields, data: st.DataObject) -> None:
    event = data.draw(plain_maps if fields is not SHOP else shop_maps)
    reader, expected = EventReader(fields), by_hand(fields, event)

    assert same(said(reader, msgpack.packb(event)), expected)
    assert same(said(reader, json.dumps(event).encode()), expected)
    assert same(said(reader, json.dumps(event, ensure_ascii=False, indent=1).encode()), expected)
    assert same(said(reader, b"\xef\xbb\xbf" + json.dumps(event).encode()), expected)


@pytest.mark.parametrize("fields", [Fields(), SHOP], ids=["plain", "shop"])
@given(data=st.data())
def test_the_compiled_decoder_reads_what_the_field_by_field_reading_reads(fields: Fields, data: st.DataObject) -> None:
    event = data.draw(plain_maps if fields is not SHOP else shop_maps)
    reader = EventReader(fields)
    for value in (msgpack.packb(event), json.dumps(event).encode()):
        by_field: Reading | str | None
        try:
            by_field = reader._by_field(value, b"ann")
        except MalformedInteraction as error:
            by_field = str(error)
        assert str(said(reader, value)) == str(by_field)


@example(b"\x81\xa4item")
@example(b'{"item": 7')
@example(b'{"item": ' + b"[" * 100_000)
@example(b"\x91" * 10_000 + b"\x01")
@example(b"\x81\xa4item" + b"\x91" * 100_000)
@example(b"\x81\x92\x01\x02\x03")
@example(b'{"item": "\\ud800"}')
@example(b'{"item": 1' + b"0" * 5_000 + b"}")
@example(b"\xef\xbb\xbf")
@given(st.one_of(st.binary(max_size=40), st.binary(max_size=20).map(lambda rest: b"\x82\xa4item" + rest)))
def test_no_bytes_end_in_another_error(value: bytes) -> None:
    for reader in (EventReader(), EventReader(SHOP)):
        said(reader, value)


@given(ids, st.one_of(st.none(), moments))
def test_a_field_that_nobody_named_is_no_reason_to_refuse(item: int | str, ts: int | None) -> None:
    told = {"item": item, "type": "view", "unknown": [1, {"deep": None}], "price": math.nan, "ts": ts}
    expected = (item, ts)

    assert EventReader().read(json.dumps(told).encode(), b"") == expected
    assert EventReader().read(json.dumps(told, ensure_ascii=False, indent=2).encode(), b"") == expected
    packed = {**told, 7: "a key that is no text", "far": msgpack.Timestamp(2**40), "own": msgpack.ExtType(5, b"x")}
    assert EventReader().read(msgpack.packb(packed), b"") == expected
    foreign = msgpack.packb({"latin-1": "encoding", **told}).replace(b"\xa8encoding", b"\xa8" + b"\xe9" * 8)
    assert EventReader().read(foreign, b"") == expected


def test_an_unreadable_neighbour_does_not_hide_what_is_named() -> None:
    packed = msgpack.packb({"item": 7, "ts": msgpack.Timestamp(1_704_110_400), "note": "?"}).replace(
        b"\xa1?", b"\xa1\xff"
    )

    assert EventReader().read(packed, b"") == (7, NOON)


def test_a_large_map_is_a_map_too() -> None:
    wide = {f"field-{at}": at for at in range(70_000)}

    assert EventReader().read(msgpack.packb({"item": 7, **wide}), b"") == (7, None)
    assert EventReader().read(msgpack.packb({"item": 7, **{str(at): at for at in range(20)}}), b"") == (7, None)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"type": "view"}, "there is no field `product`"),
        ({"type": "view", "product": 7}, "`product` is an integer, expected a map with `id`"),
        ({"type": "view", "product": None}, "`product` is null, expected a map with `id`"),
        ({"type": "view", "product": {}}, "there is no field `product.id`"),
        ({"type": "view", "product": {"id": None}}, "`product.id` is null, expected text or an integer"),
        ({"type": "view", "product": {"id": 7.0}}, "`product.id` is a float, expected text or an integer"),
        ({"type": "view", "product": {"id": True}}, "`product.id` is true or false"),
        ({"type": "view", "product": {"id": ""}}, "`product.id` is empty"),
        ({"type": "view", "product": {"id": "x" * 256}}, "`product.id` has 256 bytes, expected at most 255"),
        ({"type": "view", "product": {"id": 7}, "at": "noon"}, "`at` is text that is neither a number nor ISO 8601"),
        ({"type": "view", "product": {"id": 7}, "at": [1]}, "`at` is a list, expected a number or ISO 8601 text"),
        ({"product": {"id": 7}}, "there is no field `type`"),
        ({"type": None, "product": {"id": 7}}, "`type` is null, expected the kind of the event as text"),
        ({"type": "view", "who": {"id": "bob"}}, "`who.id` is another user than the record's key"),
        ({"type": "view", "who": {"id": 2.5}}, "`who.id` is a float"),
        ({"type": "view", "who": None}, "`who` is null, expected a map with `id`"),
    ],
)
def test_a_refusal_names_the_field_and_what_was_found(value: dict[str, Any], said: str) -> None:
    event = {"who": {"id": "ann"}, **value}
    for encoded in (json.dumps(event).encode(), msgpack.packb(event)):
        with pytest.raises(MalformedInteraction, match=re.escape(said)):
            EventReader(SHOP).read(encoded, b"ann")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"", "value is empty, expected a MessagePack or JSON map with `product.id`"),
        (b"\x00\x00\x00\x00\x07abc", "schema id 7"),
        (b"hello", "value starts with byte 0x68"),
        (b"[1]", "value starts with byte 0x5b"),
        (b" [1]", "value is a list, expected a map with `product.id`"),
        (b'{"item": 7', "value is not JSON: "),
        (b'{"item": "\xff"}', "is not UTF-8"),
        (b"\x81\xa4item", "value is not MessagePack: "),
    ],
)
def test_what_is_not_a_map_is_refused_with_its_first_byte(value: bytes, said: str) -> None:
    with pytest.raises(MalformedInteraction, match=re.escape(said)):
        EventReader(SHOP).read(value, b"ann")


@pytest.mark.parametrize("item", [10**21, 2**64, -(2**63) - 1])
def test_an_integer_that_a_list_could_not_hold_is_refused(item: int) -> None:
    with pytest.raises(MalformedInteraction, match=re.escape("expected -2**63 to 2**64 - 1, or text")):
        EventReader().read(json.dumps({"item": item}).encode(), b"ann")


@pytest.mark.parametrize(
    "event",
    [
        {"type": "login"},
        {"type": "login", "product": 7},
        {"type": "login", "product": {"id": [1]}, "at": {}},
        {"type": "login", "who": {"id": "somebody"}},
        {"type": 4},
    ],
)
def test_an_event_of_another_kind_is_passed_over_whatever_it_holds(event: dict[str, Any]) -> None:
    assert EventReader(SHOP).read(json.dumps(event).encode(), b"ann") is None
    assert EventReader(SHOP).read(msgpack.packb(event), b"ann") is None


@pytest.mark.parametrize("event", [{"product.id": 7}, {"product.id": 7, "at": NOON}, {"product": {"id": 7}}])
def test_a_field_may_have_the_dot_in_its_name(event: dict[str, Any]) -> None:
    reader = EventReader(Fields(("product", "id"), ("at",)))

    for encoded in (json.dumps(event).encode(), msgpack.packb(event)):
        assert reader.read(encoded, b"") == (7, event.get("at"))


def test_more_digits_than_python_reads_in_a_field_that_nobody_named_are_no_reason_to_refuse() -> None:
    value = b'{"item": 7, "x": NaN, "y": ' + b"9" * 5_000 + b"}"

    assert EventReader().read(value, b"") == (7, None)


@pytest.mark.parametrize("kind", [3, "3", "view"])
def test_a_kind_is_compared_as_text(kind: int | str) -> None:
    event = {"type": kind, "who": {"id": "ann"}, "product": {"id": 7}}

    assert EventReader(SHOP).read(json.dumps(event).encode(), b"ann") == (7, None)
    assert EventReader(SHOP).read(msgpack.packb(event), b"ann") == (7, None)


@pytest.mark.parametrize("user", [42, "42"])
def test_the_user_in_the_event_is_compared_as_text_with_the_key(user: int | str) -> None:
    reader = EventReader(Fields(user=("user",)))

    assert reader.read(json.dumps({"user": user, "item": 1}).encode(), b"42") == (1, None)
    with pytest.raises(MalformedInteraction, match="another user"):
        reader.read(json.dumps({"user": user, "item": 1}).encode(), b"None")
    with pytest.raises(MalformedInteraction, match="there is no field `user`"):
        reader.read(b'{"item": 1}', b"None")


@pytest.mark.parametrize(
    ("rule", "ts", "expected"),
    [
        (TimeRule(), 1_704_110_400, NOON),
        (TimeRule(), 1_704_110_400.0, NOON),
        (TimeRule(), NOON, NOON),
        (TimeRule(), NOON * 1000, NOON),
        (TimeRule(), NOON * 1_000_000, NOON),
        (TimeRule(), "2024-01-01T12:00:00Z", NOON),
        (TimeRule("ms", earliest_ms=0), 5, 5),
        (TimeRule("s", earliest_ms=0), 5, 5000),
        (TimeRule("us"), NOON * 1000, NOON),
        (TimeRule("iso"), "2024-01-01T12:00:00Z", NOON),
        (TimeRule(), 5, Implausible(5)),
        (TimeRule("ms"), 1_704_110_400, Implausible(1_704_110_400)),
        (TimeRule("s"), NOON, Implausible(NOON)),
        (TimeRule(latest_ms=NOON), NOON, Implausible(NOON)),
    ],
)
def test_one_rule_reads_times(rule: TimeRule, ts: object, expected: int | Implausible) -> None:
    reader = EventReader(times=rule)
    for value in (json.dumps({"item": 1, "ts": ts}).encode(), msgpack.packb({"item": 1, "ts": ts})):
        assert reader.read(value, b"") == (1, expected)


@pytest.mark.parametrize("ts", [NOON, NOON // 1000, float(NOON), str(NOON)])
def test_a_number_is_no_time_where_times_are_iso_8601(ts: object) -> None:
    with pytest.raises(MalformedInteraction, match="`ts` is a number, expected ISO 8601 text"):
        EventReader(times=TimeRule("iso")).read(json.dumps({"item": 1, "ts": ts}).encode(), b"")
