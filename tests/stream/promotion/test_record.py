"""Records of models as values: what is read, what is kept out, and what a rollback returns to."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.promotion.record import (
    CHAMPION,
    Check,
    Models,
    Promotion,
    alias_key,
    encode,
    in_words,
    iso,
    new_id,
    promotion_key,
    worker_key,
)
from stream.promotion.rollback import rollback
from tests.stream.promotion.promotions import NOON, promotion, report

GOLDEN = Path(__file__).parent / "golden"
Record = tuple[bytes, bytes | None]


def applied(records: Sequence[Record]) -> Models:
    models = Models()
    for key, value in records:
        models.apply(key, value)
    return models


def published(*promotions: Promotion) -> list[Record]:
    return [(key, encode(each)) for each in promotions for key in (promotion_key(each.id), alias_key(each.alias))]


def test_the_newest_record_of_an_alias_counts_and_history_keeps_all() -> None:
    first = promotion("films@1")
    second = promotion("films@2", after=first)
    models = applied(published(first, second))
    assert models.aliases == {CHAMPION: second}
    assert models.newest_first() == [second, first]


@pytest.mark.parametrize("kind", ["alias", "promotion", "worker"])
def test_a_null_value_deletes_what_its_key_names(kind: str) -> None:
    only = promotion("films@1")
    records = [*published(only), (worker_key("one"), encode(report("one", only)))]
    keys = {"alias": alias_key(CHAMPION), "promotion": promotion_key(only.id), "worker": worker_key("one")}
    before, after = applied(records), applied([*records, (keys[kind], None)])
    held = {"alias": "aliases", "promotion": "history", "worker": "workers"}
    for each, name in held.items():
        assert getattr(after, name) == ({} if each == kind else getattr(before, name))


def test_ids_sort_by_time_and_never_repeat() -> None:
    ids = [new_id(NOON + each // 100) for each in range(1000)]
    assert len(set(ids)) == 1000
    assert sorted(ids, key=lambda each: each[:10]) == ids
    assert {len(each) for each in ids} == {26}


def test_an_id_begins_with_its_time() -> None:
    """As the specification of ULIDs has it."""
    assert new_id(1_469_918_176_385)[:10] == "01ARYZ6S41"


@pytest.mark.parametrize("key", [b"", b"alias", b"canary/x", b"\xff", b"worker/"])
def test_a_key_of_another_form_is_kept_out(key: bytes) -> None:
    models = applied([(key, encode(promotion("films@1")))])
    assert models.kept_out == {key}
    assert models == Models()


WRONG_PROMOTIONS: dict[str, dict[str, Any]] = {
    "a newer schema": {"schema": 2},
    "no schema": {"schema": ...},
    "an id that is no ULID": {"id": "42"},
    "the alias `none`, which means no alias": {"alias": "none"},
    "a version without a number": {"version": "films"},
    "a version 0": {"version": "films@0"},
    "no place": {"uri": ""},
    "a hash that is too short": {"sha256": "ab"},
    "a hash in capitals": {"sha256": "A" * 64},
    "no memory format": {"memory_format": ...},
    "segments of no length": {"segment_length": 0},
    "a negative size": {"bytes": -1},
    "a time in words": {"when_ms": "noon"},
    "a time before 1970": {"when_ms": -1},
    "nobody": {"who": ""},
    "another kind": {"kind": "demote"},
    "a gate that is no list": {"gate": "passed"},
    "a check without a result": {"gate": [{"name": "files", "figure": ""}]},
}


@pytest.mark.parametrize("what", WRONG_PROMOTIONS)
def test_a_promotion_that_cannot_be_read_changes_nothing(what: str, caplog: pytest.LogCaptureFixture) -> None:
    first = promotion("films@1")
    wrong = json.loads(encode(promotion("films@2", after=first)))
    for name, value in WRONG_PROMOTIONS[what].items():
        wrong[name] = value
        if value is ...:
            del wrong[name]
    key = alias_key(CHAMPION)
    with caplog.at_level(logging.WARNING):
        models = applied([*published(first), *[(key, json.dumps(wrong).encode())] * 3])
    assert models == applied(published(first))
    assert models.kept_out == {key}
    assert len(caplog.records) == 1, "once"
    assert "record of a model passed over key=alias/champion: " in caplog.text


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"null", b"7", b"\xff", b'{"schema": 1}', b'{"schema": "1"}'])
@pytest.mark.parametrize(
    "key", [alias_key(CHAMPION), promotion_key(new_id(NOON)), worker_key("one")], ids=["alias", "promotion", "worker"]
)
def test_a_value_that_is_no_record_is_kept_out(key: bytes, value: bytes) -> None:
    models = applied([(key, value)])
    assert models == Models()
    assert models.kept_out == {key}


def test_a_value_under_the_key_of_another_is_kept_out() -> None:
    one, two = promotion("films@1"), promotion("films@2")
    models = applied(
        [
            (promotion_key(one.id), encode(two)),
            (alias_key("challenger"), encode(one)),
            (worker_key("one"), encode(report("two", one))),
        ]
    )
    assert models == Models()
    assert len(models.kept_out) == 3


def test_fields_of_a_newer_build_are_ignored() -> None:
    only = promotion("films@1")
    newer = json.dumps({**json.loads(encode(only)), "approved_by": "eve"}).encode()
    assert applied([(alias_key(CHAMPION), newer)]).aliases == {CHAMPION: only}


def test_the_bytes_of_schema_1_are_read_for_ever() -> None:
    written = [(GOLDEN / name).read_bytes().strip() for name in ("promotion-1.json", "report-1.json")]
    models = applied(list(zip([alias_key(CHAMPION), worker_key("one")], written, strict=True)))
    champion, one = models.aliases[CHAMPION], models.workers["one"]
    assert (champion.version, champion.bytes, champion.why) == ("films@8", 12_345_678, "a new season")
    assert champion.gate == (Check(name="speed", result="failed", figure="p95 3.1 ms, champion 2.0 ms"),)
    assert (one.state, one.of, one.since_ms) == ("refused", "films@8", 1_796_040_000_001)
    assert [encode(champion), encode(one)] == written, "and this build writes them"


keys = st.sampled_from(
    [alias_key(CHAMPION), alias_key("challenger"), worker_key("one"), worker_key("two"), b"other/x"]
    + [promotion_key(each.id) for each in (promotion("films@1"), promotion("films@2"))]
)


@st.composite
def records(draw: st.DrawFn) -> list[Record]:
    """Records as they may come, readable or not."""
    found: list[Record] = []
    for key in draw(st.lists(keys, max_size=30)):
        kind, _, name = key.decode().partition("/")
        given = promotion(f"films@{draw(st.integers(1, 9))}")
        if kind == "alias":
            given = msgspec.structs.replace(given, alias=name)
        elif kind == "promotion":
            given = msgspec.structs.replace(given, id=name)
        value = encode(report(name, given) if kind == "worker" else given)
        found.append((key, draw(st.sampled_from([value, value, None]))))
    return found


@given(records())
def test_compaction_changes_nothing(given_records: list[Record]) -> None:
    """Kafka keeps the newest record of each key, in their order, and drops null values in the end."""
    newest = {key: at for at, (key, _) in enumerate(given_records)}
    compacted = [record for at, record in enumerate(given_records) if newest[record[0]] == at]
    whole = applied(given_records)
    for kept in (compacted, [record for record in compacted if record[1] is not None]):
        models = applied(kept)
        assert models == whole
        assert list(models.history) == list(whole.history)


def chain(text: str) -> list[Promotion]:
    """`A B <A`: A is promoted, then B, then a rollback to A."""
    made: list[Promotion] = []
    for each in text.split():
        version = f"films@{ord(each[-1]) - ord('A') + 1}"
        last = made[-1] if made else None
        made.append(promotion(version, after=last, kind="rollback" if each[0] == "<" else "promote"))
    return made


@pytest.mark.parametrize(
    ("history", "to"),
    [
        ("", None),
        ("A", None),
        ("A B", "A"),
        ("A B C", "B"),
        ("A B <A", None),
        ("A B C <B", "A"),
        ("A B C <B <A", None),
        ("A B <A C", "A"),
        ("A B C <B D", "B"),
        ("A A", None),
        ("A B B", "A"),
        ("A B A", "B"),
        ("A B A <B", "A"),
        ("A B <C", None),
    ],
)
def test_a_rollback_undoes_one_promotion(history: str, to: str | None) -> None:
    promotions = chain(history)
    found = rollback(applied(published(*promotions)), CHAMPION, who="eve@desk", when_ms=NOON, why="too slow")
    if to is None:
        assert found is None
        return
    assert found is not None
    returned = next(each for each in promotions if each.version == f"films@{ord(to) - ord('A') + 1}")
    current = promotions[-1]
    assert (found.version, found.uri, found.sha256) == (returned.version, returned.uri, returned.sha256)
    assert (found.previous, found.expected, found.kind, found.why) == (
        current.version,
        current.id,
        "rollback",
        "too slow",
    )


@given(st.lists(st.sampled_from("ABC"), max_size=12), st.integers(0, 12))
def test_rolling_back_what_was_promoted_leads_back(promoted: list[str], undone: int) -> None:
    """As many rollbacks as promotions of other versions end at the first one."""
    models = applied(published(*chain(" ".join(promoted))))
    changes = [each for at, each in enumerate(promoted) if at == 0 or promoted[at - 1] != each]
    for at in range(undone):
        found = rollback(models, CHAMPION, who="eve@desk", when_ms=NOON + at, why=None)
        if len(changes) < 2:
            assert found is None
            return
        changes.pop()
        assert found is not None
        assert found.version == f"films@{ord(changes[-1]) - ord('A') + 1}"
        for key, value in published(found):
            models.apply(key, value)


def test_aliases_have_histories_of_their_own() -> None:
    first, other = promotion("films@1"), promotion("films@2", alias="challenger")
    models = applied(published(first, other))
    assert models.newest_first() == [other, first]
    assert models.before("challenger") is None
    assert models.before() is None


def test_times_and_promotions_in_words() -> None:
    assert iso(NOON) == "2026-11-30T12:00:00Z"
    assert iso(2**63) == f"{2**63} ms"
    assert in_words(promotion("films@1")) == "ada@laptop promoted films@1 at 2026-11-30T12:00:00Z"
    assert in_words(promotion("films@1", kind="rollback")).startswith("ada@laptop rolled back to films@1 at ")
