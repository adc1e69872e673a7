"""A row has everything that is stored about a user: records made from it are read as the same state."""

from pathlib import Path

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.codec import FOLDED, name_key, name_value, read_folded, read_user, user_of
from state.interaction import NAMED, item_key
from state.user import User
from stream.state_rows import SCHEMA, Facts, Row, changes, join_parts, read_facts, read_rows, rows, write_parts
from tests.stream.test_formats import SEGMENT, Chapter, Played, chapters


def stored(records: list[tuple[bytes, bytes]]) -> dict[bytes, tuple[User, dict[bytes, object]]]:
    """Each user's state and kept segments, without where the working records end."""
    by_user: dict[bytes, list[tuple[bytes, bytes]]] = {}
    for key, value in records:
        user, rest = user_of(key)
        if user:
            by_user.setdefault(user, []).append((rest, value))
    found = {}
    for user, parts in by_user.items():
        state = msgspec.structs.replace(read_user([each for each in parts if each[0][:1] != FOLDED]), ends=())
        found[user] = state, {rest: read_folded(value) for rest, value in parts if rest[:1] == FOLDED}
    return found


@settings(max_examples=25, deadline=None)
@given(chapters, st.integers(0, 5), st.integers(0, 2), st.sampled_from([0, 10]))
def test_records_made_from_rows_are_the_same_states(
    played: list[Chapter], keep_segments: int, keep_formats: int, refold_per_s: int
) -> None:
    """With memories that were rebuilt, memories of other formats, kept segments with and without times."""
    before = Played(played, keep_segments=keep_segments, keep_formats=keep_formats, refold_per_s=refold_per_s)
    own = [(key, value) for key, value in before.partition_records if not user_of(key)[0]]
    names: dict[int, str] = {}
    made = sorted(record for row in before.rows().values() for record in changes(row, SEGMENT, names))

    assert stored(made) == stored(before.partition_records)
    assert {row.user_id.encode(): row for row in rows(iter([*own, *made]), 0)} == before.rows()
    assert not names


def test_ids_that_are_text_are_the_same_items_again() -> None:
    row = Row("ann", 3, 0, ["7", "007", "-7"], [5, 6, 8], [], "", 8, 1)
    names: dict[int, str] = {}
    made = changes(row, SEGMENT, names)
    assert names == {item_key("007"): "007", item_key(-7): "-7"}
    assert min(names) >= NAMED
    own = [(name_key(item), name_value(text)) for item, text in sorted(names.items())]
    assert list(rows(iter([*own, *sorted(made)]), 1)) == [row]


@pytest.mark.parametrize("count", [0, 1, 5001])
def test_a_file_has_the_rows_and_says_what_they_have_in_common(tmp_path: Path, count: int) -> None:
    found = [Row(f"user-{number:05d}", 1, 0, ["a"], [number], [], "", number, 1) for number in range(count)]
    (tmp_path / "parts").mkdir()
    assert write_parts(iter(found), tmp_path / "parts", "00001") == count
    facts = Facts(SEGMENT, "clicks", "id", {"1": 7})
    join_parts(tmp_path / "parts", tmp_path / "new" / "states.parquet", facts)

    out = tmp_path / "new" / "states.parquet"
    assert read_facts(out) == facts
    assert [row for piece in read_rows(out) for row in piece] == found
    assert dict(pl.read_parquet_schema(out)) == dict(SCHEMA)
    assert [each.name for each in out.parent.iterdir()] == ["states.parquet"]


def test_a_file_of_others_says_nothing(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": ["ann"]}).write_parquet(tmp_path / "a.parquet")
    assert read_facts(tmp_path / "a.parquet") is None
