"""One partition's store: what is written is read, alone and after reopening; and what cannot be opened or read says
which it is.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from state.changelog import Change
from state.codec import (
    OFFSET,
    SEGMENT_LENGTH,
    folded_key,
    folded_value,
    name_key,
    name_value,
    number_value,
    preference_key,
    preference_value,
    working_key,
    working_value,
)
from state.errors import StateCorrupted, StateError, StateFormatUnknown, StoreLocked, StoreUnwritable
from state.store import Store, StoreMemory, wipe
from state.user import NEW_USER, Preference, Segment, User, packed

MEMORY = StoreMemory(8 << 20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "0"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    opened = Store(folder, MEMORY)
    yield opened
    opened.close()


def working(user: bytes, *items: int, before: int = 0) -> Change:
    return working_key(user, before + len(items)), working_value(items, [10 * item for item in items])


def a_user(*items: int, ends: tuple[int, ...] = ()) -> User:
    return User(len(items), packed(items), packed([10 * item for item in items]), ends or (len(items),), None)


def test_a_new_store_is_empty(store: Store) -> None:
    assert store.changelog_offset() is None
    assert store.read([b"ann"]) == [NEW_USER]
    assert store.read([]) == []
    assert store.taken([b"ann"]) == [0]
    assert store.taken([]) == []
    assert store.segment_length() is None
    assert list(store.records()) == []


def test_users_are_read_in_the_order_asked_for(store: Store) -> None:
    store.write([working(b"ann", 1, 2), working(b"bob", 3), working(b"ann", 4, before=2)], 7)
    assert store.read([b"bob", b"nobody", b"ann"]) == [a_user(3), NEW_USER, a_user(1, 2, 4, ends=(3, 2))]
    assert store.taken([b"bob", b"nobody", b"ann"]) == [1, 0, 3]


def test_a_user_is_read_with_preference_memory_and_without_the_folded_segments(store: Store) -> None:
    preference = Preference("fake/1", 4, 1, 40, b"\x00" * 8)
    folded = (folded_key(b"ann", 0), folded_value([1, 2, 3, 4]))
    store.write([(preference_key(b"ann"), preference_value(preference)), folded, working(b"ann", before=4)], 2)
    assert store.read([b"ann"]) == [User(4, b"", b"", (4,), preference)]
    assert store.taken([b"ann"]) == [4]


def test_records_without_a_segment_length_are_of_another_layout(store: Store) -> None:
    """Read by this one, the count of a user would be taken from bytes that mean something else."""
    store.write([], 3)
    assert store.segment_length() is None
    store.write([(b"\x03ann\x01", b"\x01\x95")], 4)
    with pytest.raises(StateFormatUnknown, match="new REC2PM_APP"):
        store.segment_length()


def test_the_segment_length_is_told_apart_from_the_offset(store: Store) -> None:
    store.write([(SEGMENT_LENGTH, number_value(50))], 2)
    assert (store.segment_length(), store.changelog_offset()) == (50, 2)


def test_folded_segments_are_found_by_user_and_number_and_none_where_none_is_kept(store: Store) -> None:
    ann, bob = b"ann", b"bob"
    store.write([(folded_key(ann, 3), folded_value([1, 2])), (folded_key(bob, 3), folded_value([5]))], 2)
    assert store.kept([(b"bob", 3), (b"ann", 2), (b"ann", 3)]) == [
        Segment(3, packed([5]), b""),
        None,
        Segment(3, packed([1, 2]), b""),
    ]
    assert store.kept([]) == []


def test_items_are_unnamed_until_their_text_is_stored(store: Store) -> None:
    store.write([(name_key(2**62 + 1), name_value("song-a"))], 1)
    assert store.unnamed([2**62 + 2, 2**62 + 1, 2**62]) == [2**62 + 2, 2**62]
    assert store.unnamed([]) == []


def test_everything_about_a_user_is_listed_and_nothing_about_others(store: Store) -> None:
    """Ids that begin like others, or like another's keys: none of them sees the other's records."""
    users = [b"a", b"aa", b"a\x01", b"a\x02\x00\x00", b"\x01a", b"\x01", b"\x00", b"\x02aa", b"n", b"o", b"\xff" * 255]
    for at, user in enumerate(users):
        store.write([working(user, at), (folded_key(user, 0), folded_value([at]))], 1)
    store.write([(name_key(2**62), name_value("x"))], 2)
    assert store.read(users) == [a_user(at) for at in range(len(users))]
    assert store.taken(users) == [1] * len(users)
    assert store.taken([user + b"\x00" for user in users[:-1]]) == [0] * len(users[:-1])
    for user in users:
        assert sorted(store.keys_of(user)) == sorted([working_key(user, 1), folded_key(user, 0)])
    assert store.keys_of(b"nobody") == []


def test_a_deleted_key_is_gone(store: Store) -> None:
    store.write([working(b"ann", 1), working(b"bob", 2)], 2)
    store.write([(working_key(b"ann", 1), None), (working_key(b"never", 1), None)], 4)
    assert store.read([b"ann", b"bob"]) == [NEW_USER, a_user(2)]


def test_records_are_what_the_changelog_holds_in_key_order(store: Store) -> None:
    changes = [working(b"bob", 1), working(b"ann", 2), (name_key(2**62), name_value("x"))]
    store.write(changes, 3)
    assert list(store.records()) == sorted(changes), "the offset is the store's own and is not among them"


def test_a_write_without_an_offset_leaves_the_offset_as_it_is(store: Store) -> None:
    store.write([working(b"ann", 1)], 12)
    store.write([working(b"bob", 1)], None)
    assert store.changelog_offset() == 12
    store.write([], 0)
    assert store.changelog_offset() == 0, "an offset, and not the absence of one"


def test_changes_and_their_offset_are_one_write_or_none(store: Store) -> None:
    store.write([working(b"ann", 1)], 1)
    with pytest.raises((TypeError, ValueError)):
        store.write([working(b"ann", 2), (b"key", "not bytes")], 2)  # type: ignore[list-item]
    assert store.read([b"ann"]) == [a_user(1)]
    assert store.changelog_offset() == 1


ENDS_WITHOUT_CLOSING = """
import os, signal, sys
from pathlib import Path
from state.codec import working_key, working_value
from state.store import Store, StoreMemory
store = Store(Path(sys.argv[1]), StoreMemory(8 << 20))
for at in range(200):
    store.write([(working_key(b"ann", at + 1), working_value([at], [at]))], at + 1)
    if at == 120:
        store.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_a_crash_data_and_offset_agree(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", ENDS_WITHOUT_CLOSING, str(folder)], check=False, timeout=60)
    store = Store(folder, MEMORY)
    try:
        offset = store.changelog_offset()
        assert offset is not None
        assert offset >= 121, "what was flushed is there"
        (user,) = store.read([b"ann"])
        assert user.working == offset
    finally:
        store.close()


def test_a_closed_store_reopens_with_everything_in_it(folder: Path) -> None:
    """Iterators that were used are let go of: RocksDB keeps its lock while one lives."""
    store = Store(folder, MEMORY)
    store.write([working(b"ann", 1, 2), (folded_key(b"ann", 0), folded_value([3]))], 5)
    for _ in range(3):
        assert store.read([b"ann", b"bob"]) == [a_user(1, 2), NEW_USER]
        assert len(store.keys_of(b"ann")) == 2
        assert len(list(store.records())) == 2
        store.close()
        store = Store(folder, MEMORY)
        assert store.changelog_offset() == 5
    store.close()


def test_a_wiped_store_is_gone_and_wiping_nothing_is_no_error(folder: Path) -> None:
    store = Store(folder, MEMORY)
    store.write([working(b"ann", 1)], 5)
    store.close()
    wipe(folder)
    wipe(folder)
    store = Store(folder, MEMORY)
    assert store.changelog_offset() is None
    store.close()


def test_a_second_owner_in_this_process_is_told_that_the_folder_is_locked(store: Store, folder: Path) -> None:
    with pytest.raises(StoreLocked, match=f"{folder} is locked"):
        Store(folder, MEMORY)


def test_another_process_is_told_that_the_folder_is_locked(store: Store, folder: Path) -> None:
    opens = "import sys, pathlib; from state.store import Store, StoreMemory; Store(pathlib.Path(sys.argv[1]), StoreMemory(8 << 20))"
    said = subprocess.run(
        [sys.executable, "-c", opens, str(folder)], check=False, timeout=60, capture_output=True, text=True
    )
    assert f"StoreLocked: {folder} is locked: another process has it open" in said.stderr


# --- damaged files ---

USERS = [b"user-%05d" % number for number in range(5_000)]


def filled(folder: Path) -> None:
    store = Store(folder, MEMORY)
    store.write([working(user, at) for at, user in enumerate(USERS)], 7)
    store.close()


def overwritten(path: Path, start: int, end: int) -> None:
    data = bytearray(path.read_bytes())
    for at in range(start, min(end, len(data))):
        data[at] ^= 0x55
    path.write_bytes(data)


def newest(folder: Path, pattern: str) -> Path:
    return max(folder.glob(pattern))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(
            lambda folder: (folder / "CURRENT").write_bytes(b"MANIFEST-nothing\n"), id="CURRENT names nothing"
        ),
        pytest.param(lambda folder: (folder / "CURRENT").write_bytes(b""), id="CURRENT empty"),
        pytest.param(lambda folder: overwritten(newest(folder, "MANIFEST-*"), 0, 1 << 20), id="MANIFEST overwritten"),
        pytest.param(lambda folder: newest(folder, "MANIFEST-*").unlink(), id="MANIFEST missing"),
        pytest.param(lambda folder: newest(folder, "*.sst").write_bytes(b"short"), id="table cut"),
        pytest.param(lambda folder: newest(folder, "*.sst").unlink(), id="table missing"),
    ],
)
def test_a_store_whose_files_cannot_be_read_is_corrupted(folder: Path, damage: Callable[[Path], object]) -> None:
    filled(folder)
    damage(folder)
    with pytest.raises(StateCorrupted, match=f"{folder} cannot be read"):
        Store(folder, MEMORY)
    wipe(folder)
    Store(folder, MEMORY).close()


@pytest.mark.parametrize(
    "reads",
    [
        pytest.param(lambda store: store.read(USERS), id="read"),
        pytest.param(lambda store: store.taken(USERS), id="taken"),
        pytest.param(lambda store: store.keys_of(USERS[9]), id="keys_of"),
        pytest.param(lambda store: list(store.records()), id="records"),
        pytest.param(lambda store: store.kept([(user, 0) for user in USERS]), id="kept"),
    ],
)
def test_a_block_that_fails_its_checksum_is_corruption_and_never_a_new_user(
    folder: Path, reads: Callable[[Store], object]
) -> None:
    filled(folder)
    overwritten(newest(folder, "*.sst"), 0, 20_000)
    store = Store(folder, MEMORY)
    try:
        with pytest.raises(StateCorrupted, match="checksum") as caught:
            reads(store)
        assert caught.value.folder == folder, "so that its owner knows which store to rebuild"
    finally:
        store.close()


def test_a_folder_whose_name_has_lock_in_it_is_not_a_locked_one(tmp_path: Path) -> None:
    folder = tmp_path / "block-storage"
    filled(folder)
    newest(folder, "*.sst").unlink()
    with pytest.raises(StateCorrupted):
        Store(folder, MEMORY)


def test_an_offset_record_that_cannot_be_read_is_corruption(store: Store) -> None:
    store.write([(OFFSET, b"\x01\xa1x")], None)
    with pytest.raises(StateCorrupted, match="offset or segment length"):
        store.changelog_offset()


# --- a disk that refuses ---

FILLS_ITS_DISK = """
import resource, sys
from pathlib import Path
from state.errors import StoreUnwritable
from state.store import Store, StoreMemory
store = Store(Path(sys.argv[1]), StoreMemory(8 << 20))
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    store.write([(b"%05d" % at, bytes(range(256)) * 4) for at in range(1_000)], 1)
    store.flush()
except StoreUnwritable as error:
    sys.exit(f"refused: {error}")
"""


def test_a_full_disk_is_named_as_such(folder: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", FILLS_ITS_DISK, str(folder)], check=False, timeout=60, capture_output=True, text=True
    )
    assert said.stderr.startswith(f"refused: {folder}: IO error"), said.stderr


OPENS_ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from state.errors import StoreUnwritable
from state.store import Store, StoreMemory
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
said = ""
try:
    Store(Path(sys.argv[1]), StoreMemory(8 << 20))
except StoreUnwritable as error:
    said = str(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(said)
"""


@pytest.mark.parametrize("room", [20, 60, 200], ids=lambda room: f"{room} bytes")
def test_a_store_that_a_full_disk_keeps_from_opening_says_so(folder: Path, room: int) -> None:
    """Which file is the first that does not fit depends on the room."""
    command = [sys.executable, "-c", OPENS_ON_A_FULL_DISK, str(folder), str(room)]
    said = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)
    assert said.stdout.startswith(f"{folder}: "), said.stderr


LETS_GO_OF_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from state.errors import StoreUnwritable
from state.store import Store, StoreMemory
folder = Path(sys.argv[1])
store = Store(folder, StoreMemory(8 << 20))
store.write([(b"%05d" % at, bytes(range(256)) * 4) for at in range(1_000)], 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
try:
    store.close()
except StoreUnwritable as error:
    print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
Store(folder, StoreMemory(8 << 20)).close()
print("opened again")
"""


def test_a_store_that_a_full_disk_keeps_from_closing_well_lets_go_of_its_folder_all_the_same(folder: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", LETS_GO_OF_A_FULL_DISK, str(folder)],
        check=False,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert said.stdout.splitlines() == ["refused", "opened again"], said.stderr


def test_a_state_folder_that_cannot_be_made_is_a_state_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StateError, match=str(tmp_path / "file")):
        Store(tmp_path / "file" / "0", MEMORY)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_unwritable(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o500)
    with pytest.raises(StoreUnwritable, match=str(folder)):
        Store(folder, MEMORY)
