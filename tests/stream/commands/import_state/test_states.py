"""The file of an import: what cannot be a state is refused, with the user and what was found."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from state.codec import MAX_TAKEN
from stream.commands.import_state.states import checked_states, opened
from stream.errors import ImportUnfit
from stream.state_rows import Facts, KeptSegment, OtherMemory, Row, join_parts, write_parts

L = 3
FOLDED = Row(
    "ann", 7, 2, ["a"], [9], [1.0], "new", 9, 0, 0, 8, True,
    [KeptSegment(0, ["a", "b", "c"], []), KeptSegment(1, ["a", "b", "c"], [1, 2, 3])],
    [OtherMemory("old", 2, 8, [1.0, 2.0], 0, False), OtherMemory("older", 1, 5, [3.0], 1, False)],
)  # fmt: skip
NEW = Row("bob", 2, 0, ["a", "7"], [8, 9], [], "", 9, 1)


def written(folder: Path, rows: list[Row], length: int = L) -> Path:
    (folder / "parts").mkdir()
    write_parts(iter(rows), folder / "parts", "0")
    join_parts(folder / "parts", folder / "states.parquet", Facts(length))
    return folder / "states.parquet"


def test_a_file_says_what_it_holds(tmp_path: Path) -> None:
    path = written(tmp_path, [FOLDED, NEW, msgspec.structs.replace(NEW, user_id="eve")])
    found = checked_states(path, lambda row: row.partition, lambda done, of: None)
    assert (found.users, found.formats, found.interactions) == ({0: 1, 1: 2}, {0: {"new": 1}}, 11)
    assert (found.one_format(0), found.one_format(1)) == ("new", None)
    assert found.size > 50


@pytest.mark.parametrize(
    ("row", "changed", "what"),
    [
        (NEW, {"user_id": ""}, "user_id is empty"),
        (NEW, {"user_id": "a" * 256}, "user_id has 256 bytes"),
        (NEW, {"user_id": "a\nb"}, "control characters"),
        (NEW, {"working_times": [9]}, "2 working items and 1 times"),
        (NEW, {"working_items": ["a"] * 3, "working_times": [9] * 3, "taken": 3}, "fewer than 3"),
        (NEW, {"taken": 3}, "taken is 3, expected 0 folds of 3 and 2 working items"),
        (NEW, {"working_items": [], "working_times": [], "taken": 0}, "taken is 0"),
        (NEW, {"working_items": ["a", ""]}, "an item id is empty"),
        (NEW, {"memory_format": "new"}, "1 memories of 0 folds"),
        (FOLDED, {"taken": 8}, "taken is 8, expected 2 folds"),
        (FOLDED, {"folds": MAX_TAKEN, "taken": MAX_TAKEN * L + 1}, "taken is"),
        (FOLDED, {"other_memories": []}, "0 memories of 2 folds, expected 1"),
        (FOLDED, {"prepared": False}, "2 memories of 2 folds, expected 1"),
        (FOLDED, {"memory_format": "old"}, "each format once"),
        (
            FOLDED,
            {"other_memories": [*FOLDED.other_memories, OtherMemory("x", 3, 8, [], 0, False)]},
            "more or fewer segments",
        ),
        (
            FOLDED,
            {"other_memories": [*FOLDED.other_memories, OtherMemory("x", 1, 8, [], 0, True)]},
            "more or fewer segments",
        ),
        (FOLDED, {"kept_segments": [KeptSegment(2, ["a"] * 3, [])]}, "kept segment 2"),
        (FOLDED, {"kept_segments": [KeptSegment(1, ["a"] * 2, [])]}, "kept segment 1 of 2 items"),
        (FOLDED, {"kept_segments": [KeptSegment(1, ["a"] * 3, [1])]}, "has 1 times, expected 3 or none"),
    ],
)
def test_a_row_that_is_no_state_is_refused(tmp_path: Path, row: Row, changed: dict[str, Any], what: str) -> None:
    path = written(tmp_path, [msgspec.structs.replace(row, **changed)])
    with pytest.raises(ImportUnfit, match=what):
        checked_states(path, lambda row: 0, lambda done, of: None)


def test_a_user_has_one_row(tmp_path: Path) -> None:
    path = written(tmp_path, [NEW, FOLDED, NEW])
    with pytest.raises(ImportUnfit, match="has user 'bob' 2 times"):
        checked_states(path, lambda row: 0, lambda done, of: None)


def test_a_file_without_states_is_none(tmp_path: Path) -> None:
    with pytest.raises(ImportUnfit, match="has no states"):
        opened(written(tmp_path, [], 0))
    (tmp_path / "text").write_text("user_id,taken")
    with pytest.raises(ImportUnfit, match="cannot be read as Parquet"):
        opened(tmp_path / "text")
