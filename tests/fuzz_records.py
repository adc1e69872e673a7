"""Made records through the decoding of a worker: `python -m tests.fuzz_records 100000 --seed 1`.

Keys, values, headers and times are random; many are nearly right. Nothing ends in an error, each record is counted
once, and each dead letter gives its record back. What a worker takes is written into a file as well, and `rec2pm train`
must read the same users, items and times there. What a worker refuses because of an id or a time, `train` refuses too.
"""

import argparse
import json
import math
import tempfile
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import msgpack
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from model.errors import LogUnreadable
from model.ids import checked
from model.log import open_log
from state.interaction import item_key
from stream.commands.output import printable
from stream.decode import Polled, decode
from stream.errors import MalformedInteraction
from stream.event import EventReader, Fields, Implausible
from stream.keys import KeyFormat
from stream.wire import DeadLetter, refusal
from tests.fakes import FakeRecord

NOON = 1_704_110_400_000
POLL = 20
SHOP = Fields(("product", "id"), ("at",), None, ("type",), frozenset({"view"}))

texts = st.text(st.characters(codec="utf-8"), max_size=8)
ids = st.one_of(
    st.integers(0, 50),
    st.integers(-(2**63), 2**64 - 1),
    texts,
    st.integers(0, 10**6).map(lambda number: f"{number:07}"),
    st.sampled_from(
        ["", "x" * 255, "x" * 256, "é" * 128, "7.0", "-0", "+7", None, True, 7.0, 7.5, 10**21, [7], {"id": 7}]
    ),
)
times = st.one_of(
    st.integers(NOON - 10**12, NOON + 10**12),
    st.integers(NOON // 1000 - 10**8, NOON // 1000 + 10**8),
    st.integers(NOON * 1000, NOON * 1000 + 10**12),
    st.floats(1e9, 2e9),
    st.datetimes(datetime(1980, 1, 1), datetime(2110, 1, 1)).map(datetime.isoformat),  # noqa: DTZ001  without a zone
    st.sampled_from(["2024-01-01", "2024-01-01T12:00:00Z", "2024-01-01 12:00:00+02:00", "noon", "", 0, -1, 5, 10**20]),
    st.sampled_from([None, True, [1], math.nan, math.inf]),
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=5,
)
plain = st.fixed_dictionaries({"item": ids}, optional={"ts": times, "x": anything})
shop = st.fixed_dictionaries(
    {"type": st.sampled_from(["view", "view", "view", "login", None, 3])},
    optional={"product": st.one_of(st.fixed_dictionaries({"id": ids}), anything), "at": times, "x": anything},
)


def encoded(event: dict[str, Any], form: str) -> bytes:
    try:
        if form == "json":
            return json.dumps(event).encode()
        return msgpack.packb(event)
    except (OverflowError, ValueError):  # MessagePack has no such integer
        return json.dumps(event).encode()


forms = st.sampled_from(["json", "msgpack"])
values = {
    "plain": st.builds(encoded, plain, forms),
    "shop": st.builds(encoded, shop, forms),
    "bytes": st.binary(max_size=30),
    "cut": st.builds(lambda event, form, end: encoded(event, form)[:end], plain, forms, st.integers(0, 30)),
    "null": st.none(),
}
keys = st.one_of(
    st.sampled_from([b"ann", b"bob", b"7", b"007", "päivi".encode()]),
    texts.map(str.encode),
    st.binary(max_size=12),
    st.sampled_from([None, b"", b"x" * 255, b"x" * 256, b"\x00" * 8]),
)
headers = st.lists(
    st.tuples(
        st.sampled_from(["trace", "rec2pm.attempts", "__streams.errors.offset"]), st.none() | st.binary(max_size=9)
    ),
    max_size=3,
)


def polls(kinds: list[str]) -> st.SearchStrategy[list[FakeRecord]]:
    record = st.tuples(
        keys, st.sampled_from(kinds).flatmap(values.__getitem__), headers, st.integers(0, 2), st.integers(0, 2 * NOON)
    )
    return st.lists(record, min_size=POLL, max_size=POLL).map(
        lambda drawn: [
            FakeRecord(key, value, partition, at, time, tuple(extra))
            for at, (key, value, extra, partition, time) in enumerate(drawn)
        ]
    )


def check(records: list[FakeRecord], reader: EventReader, folder: Path, seen: Counter[str]) -> None:
    polled = decode(records, "interactions", {}, {}, reader, KeyFormat("utf8"))
    taken = len(polled.items)
    assert taken + polled.forgotten + polled.passed_over + len(polled.dead) == len(records), "each is counted once"
    assert polled.next_offsets == {record.partition(): record.offset() + 1 for record in records}
    for letter in polled.dead:
        _gives_its_record_back(letter, records)
    seen.update(taken=taken, forgotten=polled.forgotten, passed_over=polled.passed_over, refused=len(polled.dead))
    _is_read_from_a_file(records, polled, reader, folder, seen)


def _gives_its_record_back(letter: DeadLetter, records: list[FakeRecord]) -> None:
    told = refusal(letter.headers)
    assert told is not None
    record = next(each for each in records if (each.partition(), each.offset()) == (told.partition, told.offset))
    assert (letter.key, letter.value, told.timestamp) == (record.key(), record.value(), record.timestamp()[1])
    assert told.headers == [each for each in record.headers() or [] if each[0] != "rec2pm.attempts"]
    assert printable(told.message) == told.message
    assert len(told.message) < 500, told.message


def _is_read_from_a_file(
    records: list[FakeRecord], polled: Polled, reader: EventReader, folder: Path, seen: Counter[str]
) -> None:
    """Write what was sent into files of JSON lines, and read them as `rec2pm train` does."""
    refused = {(told.partition, told.offset) for each in polled.dead if (told := refusal(each.headers)) is not None}
    rows: list[tuple[str, int, int]] = []
    lines: list[str] = []
    for record in records:
        key, value = record.key(), record.value()
        if value is None or key is None or (event := _event(value)) is None:
            continue
        item, time = _at(event, reader.fields.item), _at(event, reader.fields.time)
        if item is LookupError or time in (None, LookupError) or (time != time) or time in (math.inf, -math.inf):
            continue
        if reader.fields.event and _at(event, reader.fields.event) != "view":
            continue
        if (record.partition(), record.offset()) in refused:
            if _user(key) is None or not (_fails(checked, item) or _fails(reader.times.milliseconds, time)):
                continue
            line = json.dumps({"user_id": key.decode(), "item_id": item, "timestamp": time})
            assert _read(folder, [line]) is None, f"a worker refuses it, and a file is read: {line}"
            seen["refused in a file too"] += 1
            continue
        found = reader.read(value, key)
        assert found is not None
        line = json.dumps({"user_id": key.decode(), "item_id": item, "timestamp": time})
        if isinstance(found[1], Implausible):
            assert _read(folder, [line]) is None, f"a worker takes the record's own time, and a file is read: {line}"
            seen["implausible"] += 1
            continue
        assert isinstance(found[1], int)
        rows.append((key.decode(), item_key(found[0]), found[1]))
        lines.append(line)
    if rows:
        assert _read(folder, lines) == rows
        seen["read from a file"] += len(rows)


def _event(value: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(value) if value[:1] == b"{" else msgpack.unpackb(value)
    except Exception:
        return None
    return found if isinstance(found, dict) else None


def _at(event: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(event, dict) or name not in event:
            return LookupError
        event = event[name]
    return event


def _fails(rule: Any, value: Any) -> bool:
    try:
        rule(value)
    except ValueError:
        return True
    return False


def _user(key: bytes) -> str | None:
    try:
        return KeyFormat("utf8").user(key).decode()
    except MalformedInteraction:
        return None


def _read(folder: Path, lines: list[str]) -> list[tuple[str, int, int]] | None:
    """The rows of a file with these lines; None if it is refused."""
    path = folder / "log.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        frame = open_log(path).interactions.collect()
    except LogUnreadable:
        return None
    return [(str(user), item_key(item), time) for user, item, time in frame.iter_rows()]


def run(count: int, number: int, folder: Path) -> Counter[str]:
    """Check so many records, or a few more. Raises AssertionError at the first that is wrong."""
    seen: Counter[str] = Counter()
    loads = {"plain": (EventReader(), ["plain"]), "shop": (EventReader(SHOP), ["shop"])}
    loads["broken"] = (EventReader(), ["plain", "bytes", "cut", "null"])
    for name, (reader, kinds) in loads.items():
        examples = math.ceil(count / POLL / len(loads))
        print(f"{name}: {examples * POLL} records", flush=True)

        @seed(number)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(polls(kinds))
        def all_of(records: list[FakeRecord]) -> None:
            check(records, reader, folder, seen)  # noqa: B023  it is called within the turn

        all_of()
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=int, nargs="?", default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seen = run(asked.records, asked.seed, Path(folder))
    print(", ".join(f"{number:,} {what}" for what, number in seen.items()))


if __name__ == "__main__":
    main()
