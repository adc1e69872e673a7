"""A store that differs from the changelog is noticed. One that is behind, and says so, is accepted."""

import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from state.codec import POSITION, number_value
from state.store import Store, StoreMemory
from tests.crash.stores import differing, newest
from tests.crash.taken import Taken

STATE = {b"\x03ann\x01": b"a", b"\x03bob\x01": b"b", POSITION: number_value(12)}


def store(folder: Path, number: int, state: Mapping[bytes, bytes]) -> None:
    made = Store(folder / str(number), StoreMemory(8 << 20))
    made.write(list(state.items()), 40)
    made.mark_complete(1)
    made.close()


def test_a_store_that_is_the_changelog_is_right(tmp_path: Path) -> None:
    store(tmp_path, 0, STATE)
    assert list(differing([tmp_path], {0: STATE}, {0: 12})) == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({**STATE, b"\x03ann\x01": b"x"}, "0 records of the changelog lack, 0 are in the store alone, 1 differ"),
        ({**STATE, b"\x03eve\x01": b"e"}, "0 records of the changelog lack, 1 are in the store alone, 0 differ"),
        ({POSITION: number_value(12)}, "2 records of the changelog lack, 0 are in the store alone, 0 differ"),
        ({POSITION: number_value(11)}, "partition 0: no store has all of it"),
    ],
    ids=["differs", "more", "lacks", "behind"],
)
def test_a_store_that_is_not_is_told(tmp_path: Path, found: dict[bytes, bytes], said: str) -> None:
    store(tmp_path, 0, found)
    (line,) = differing([tmp_path], {0: STATE}, {0: 12})
    assert said in line


def test_one_that_is_behind_is_not_minded_where_another_has_all(tmp_path: Path) -> None:
    store(tmp_path / "w1", 0, {POSITION: number_value(11)})
    store(tmp_path / "w2", 0, STATE)
    assert list(differing([tmp_path / "w1", tmp_path / "w2"], {0: STATE, 1: {}}, {0: 12, 1: 0})) == []


@pytest.mark.parametrize("at", [0, 100_000], ids=["its position", "a user"])
def test_one_that_cannot_be_read_is_not_minded_where_another_has_all(tmp_path: Path, at: int) -> None:
    """A fault damaged a block that no step has read since: a worker that reads it would rebuild the store."""
    drawn = random.Random(at)
    users = STATE | {b"\x05%05d\x01" % number: drawn.randbytes(100) for number in range(2_000)}
    for worker in ("w1", "w2"):
        store(tmp_path / worker, 0, users)
    (file,) = (tmp_path / "w1" / "0").glob("*.sst")
    content = bytearray(file.read_bytes())
    assert len(content) > 200_000
    content[at : at + 5_000] = bytes(5_000)
    file.write_bytes(content)
    assert list(differing([tmp_path / "w1", tmp_path / "w2"], {0: users}, {0: 12})) == []
    assert list(differing([tmp_path / "w1"], {0: users}, {0: 12})) == ["partition 0: no store has all of it"]


def test_the_newest_of_each_key_counts() -> None:
    records = [
        Taken(1, at, key, value, 0)
        for at, (key, value) in enumerate([(b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"b", None)])
    ]
    assert newest(records, 2) == [{}, {b"a": b"2"}]
