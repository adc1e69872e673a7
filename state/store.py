"""One partition's users in RocksDB.

The changelog is the truth. A store is a copy: it may be behind the changelog, and it is never ahead. One batch writes
the data and the changelog offset together. What a crash loses is read again from the changelog, so RocksDB's own log is
off. This is the only file that knows rocksdict, which raises bare `Exception` with RocksDB's status word first.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from pathlib import Path
from typing import Final

from rocksdict import BlockBasedOptions, Cache, Options, Rdict, RdictIter, WriteBatch, WriteBufferManager, WriteOptions

from state.changelog import Change
from state.codec import (
    CHANGELOG,
    COMPLETE,
    FOLDED,
    INPUT,
    LOCAL,
    MARK,
    OFFSET,
    ONE_FORMAT,
    POSITION,
    PREFERENCE,
    SEGMENT_LENGTH,
    WORKING,
    Mark,
    folded_key,
    name_key,
    name_value,
    number_value,
    read_folded,
    read_mark,
    read_memories,
    read_name,
    read_number,
    read_one_format,
    read_user,
    taken_of,
    user_of,
    user_prefix,
)
from state.errors import StateCorrupted, StateError, StateFormatUnknown, StoreLocked, StoreUnwritable
from state.user import NEW_USER, Segment, User, packed

_BLOOM_BITS_PER_KEY: Final = 10
_OPEN_FILES: Final = 128


class StoreMemory:
    """One block cache and one write-buffer budget for all stores of a process: RocksDB's own defaults are per store."""

    def __init__(self, total_bytes: int) -> None:
        self.cache = Cache(total_bytes // 2)
        self.buffers = WriteBufferManager(total_bytes // 2, True)
        self.buffer_bytes = max(1 << 20, total_bytes // 8)


class Store:
    """The state of one partition's users, and the changelog offset that it reaches."""

    def __init__(self, folder: Path, memory: StoreMemory) -> None:
        """Open the store in `folder`, or make an empty one.

        Raises:
            StoreLocked: another process has it open.
            StateCorrupted: RocksDB cannot read its files.
        """
        self.folder = folder
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_max_open_files(_OPEN_FILES)
        options.set_keep_log_file_num(2)
        options.set_write_buffer_manager(memory.buffers)
        options.set_write_buffer_size(memory.buffer_bytes)
        table = BlockBasedOptions()
        table.set_block_cache(memory.cache)
        table.set_bloom_filter(_BLOOM_BITS_PER_KEY, False)
        table.set_cache_index_and_filter_blocks(True)
        options.set_block_based_table_factory(table)
        self._unlogged = WriteOptions()
        self._unlogged.disable_wal = True
        self._unlogged.memtable_insert_hint_per_batch = True
        with _translated(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._rocks = Rdict(str(folder), options)

    def changelog_offset(self) -> int | None:
        """The next changelog record to restore; None when nothing was ever written."""
        return self._number(OFFSET)

    def position(self) -> int | None:
        """The offset of the next input record that this state lacks; None when nothing was ever written."""
        return self._number(POSITION)

    def input_id(self) -> str | None:
        """Kafka's id of the input topic that the position belongs to; None when it was never stored."""
        return self._name(INPUT)

    def changelog_id(self) -> str | None:
        """Kafka's id of the changelog that this is a copy of; None when it was never stored."""
        return self._name(CHANGELOG)

    def complete_ms(self) -> int | None:
        """When the store last was known to be complete, epoch ms; None when it never was."""
        return self._number(COMPLETE)

    def belong_to(self, changelog_id: str) -> None:
        """Store which changelog this is a copy of. Call it before anything else is written."""
        self._put(CHANGELOG, name_value(changelog_id))

    def mark_complete(self, now_ms: int) -> None:
        """Store that the store is complete at this time, epoch ms."""
        self._put(COMPLETE, number_value(now_ms))

    def _put(self, key: bytes, value: bytes) -> None:
        batch = WriteBatch(raw_mode=True)
        batch.put(key, value)
        with _translated(self.folder):
            self._rocks.write(batch, self._unlogged)

    def segment_length(self) -> int | None:
        """The segment length of all users in the partition; None when nothing was ever written.

        Raises:
            StateFormatUnknown: there are records but no segment length, so the keys do not have this layout.
        """
        length = self._number(SEGMENT_LENGTH)
        if length is None and next(self.records(), None) is not None:
            raise StateFormatUnknown(
                f"{self.folder} has records but no segment length: `rec2pm state import` has not finished, so run it again to its end; or a build before "
                "state format 1 was final wrote them, so start with a new REC2PM_APP"
            )
        return length

    def one_format(self) -> str | None:
        """The memory format in which every user has a memory; None if that is not known."""
        with _translated(self.folder):
            value = self._rocks.get(ONE_FORMAT)
            return None if value is None else read_one_format(value)

    def last_mark(self) -> tuple[int, Mark] | None:
        """The newest mark and its number; None if there is none."""
        with _translated(self.folder):
            found = self._rocks.iter()
            found.seek_for_prev(MARK + b"\xff" * 4)
            if found.valid() and (key := found.key()).startswith(MARK):
                return int.from_bytes(key[len(MARK) :], "big"), read_mark(found.value())
            found.status()  # raises if damage ended the search
            return None

    def _name(self, key: bytes) -> str | None:
        with _translated(self.folder):
            value = self._rocks.get(key)
            return None if value is None else read_name(value)

    def _number(self, key: bytes) -> int | None:
        with _translated(self.folder):
            value = self._rocks.get(key)
            return None if value is None else read_number(value)

    def taken(self, users: Sequence[bytes]) -> list[int]:
        """How many interactions of each user id are remembered, in the order asked for. Sorted ids are read fastest."""
        with _translated(self.folder):
            found = self._rocks.iter()
            return _taken(found, users)

    def read(self, users: Sequence[bytes]) -> list[User]:
        """The state of each user id, in the order asked for. Sorted ids are read fastest."""
        with _translated(self.folder):
            found = self._rocks.iter()
            return [_user(found, user_prefix(user)) for user in users]

    def kept(self, segments: Sequence[tuple[bytes, int]]) -> list[Segment | None]:
        """Folded segments, each named by user id and number; None where a segment is not kept."""
        with _translated(self.folder):
            values = self._rocks.get([folded_key(user, number) for user, number in segments]) if segments else []
            return [
                None if value is None else _segment(number, value)
                for (_, number), value in zip(segments, values, strict=True)
            ]

    def memories(self, after: bytes, limit: int) -> list[tuple[bytes, User]]:
        """The next users in the order of their keys, at most `limit`, with their memories and nothing else.

        Args:
            after: begin after this user id; empty: with the first user.
        """
        with _translated(self.folder):
            found = self._rocks.iter()
            # Users' keys begin with the length of the id, the partition's own with 0.
            found.seek(_after(after) if after else b"\x01")
            users: list[tuple[bytes, User]] = []
            while found.valid() and len(users) < limit:
                user, _ = user_of(found.key())
                users.append((user, _memories(found, user_prefix(user))))
                found.seek(_after(user))
            found.status()  # raises if damage ended the scan, not the last record
            return users

    def unnamed(self, items: Sequence[int]) -> list[int]:
        """Those of the hashed item keys whose text is not stored yet."""
        with _translated(self.folder):
            values = self._rocks.get([name_key(item) for item in items]) if items else []
        return [item for item, value in zip(items, values, strict=True) if value is None]

    def names(self, items: Sequence[int]) -> dict[int, str]:
        """The texts of hashed item keys; a key whose text is not stored is left out."""
        with _translated(self.folder):
            values = self._rocks.get([name_key(item) for item in items]) if items else []
            return {item: read_name(value) for item, value in zip(items, values, strict=True) if value is not None}

    def keys_of(self, user: bytes) -> list[bytes]:
        """Every key that is stored about a user."""
        with _translated(self.folder):
            return [key for key, _ in _records(self._rocks.iter(), user_prefix(user))]

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """All records that the changelog holds as well, in key order."""
        with _translated(self.folder):
            for key, value in _records(self._rocks.iter(), b""):
                if key not in LOCAL:
                    yield key, value

    def write(self, changes: Iterable[Change], changelog_offset: int | None) -> None:
        """Apply changes and the changelog offset that they reach, all or nothing; None leaves the offset as it is."""
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in sorted(changes, key=itemgetter(0)):  # in key order, each goes in right after the one before
            if value is None:
                delete(key)
            else:
                put(key, value)
        if changelog_offset is not None:
            put(OFFSET, number_value(changelog_offset))
        with _translated(self.folder):
            self._rocks.write(batch, self._unlogged)

    def flush(self) -> None:
        """Write what is in memory to disk, so that a crash leaves less to restore."""
        with _translated(self.folder):
            self._rocks.flush()

    def close(self) -> None:
        """Write everything to disk and release the folder. It is released even if the disk refuses the write."""
        with _translated(self.folder):
            try:
                self._rocks.flush()
            finally:
                self._rocks.close()


def bytes_below(folder: Path) -> int:
    """The bytes of a store's files. Any thread may ask, whether the store is open or not."""
    found = 0
    with suppress(OSError), os.scandir(folder) as files:  # RocksDB deletes files at any time
        for each in files:
            with suppress(OSError):
                found += each.stat().st_size
    return found


def wipe(folder: Path) -> None:
    """Remove a closed store; the changelog rebuilds it."""
    with _translated(folder):
        if folder.exists():
            shutil.rmtree(folder)


def _records(found: RdictIter, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    found.seek(prefix)
    while found.valid():
        key = found.key()
        if not key.startswith(prefix):
            return
        yield key, found.value()
        found.next()
    found.status()  # raises if damage ended the scan, not the last record


def _taken(found: RdictIter, users: Sequence[bytes]) -> list[int]:
    """Each user's `taken`, from the key of their first record, which is the newest working record."""
    seek, valid, key = found.seek, found.valid, found.key
    taken = []
    for user in users:
        prefix = user_prefix(user) + WORKING
        seek(prefix)
        if valid():
            first = key()
            taken.append(taken_of(first[len(prefix) - 1 :]) if first.startswith(prefix) else 0)
        else:
            found.status()  # raises if damage ended the scan, not the last record
            taken.append(0)
    return taken


def _user(found: RdictIter, prefix: bytes) -> User:
    """A user's state, from their working and preference records."""
    end = len(prefix)
    found.seek(prefix)
    records: list[tuple[bytes, bytes]] = []
    while found.valid():
        key = found.key()
        if not key.startswith(prefix) or key[end : end + 1] == FOLDED:
            return read_user(records) if records else NEW_USER
        records.append((key[end:], found.value()))
        found.next()
    found.status()
    return read_user(records) if records else NEW_USER


def _after(user: bytes) -> bytes:
    """A key after all keys of a user, and before those of the next one."""
    return user_prefix(user) + b"\xff"


def _memories(found: RdictIter, prefix: bytes) -> User:
    """A user with their memories and nothing else."""
    start, end = prefix + PREFERENCE, len(prefix)
    found.seek(start)
    records: list[tuple[bytes, bytes]] = []
    while found.valid() and (key := found.key()).startswith(start):
        records.append((key[end:], found.value()))
        found.next()
    found.status()
    return read_memories(records)


def _segment(number: int, value: bytes) -> Segment:
    items, times = read_folded(value)
    try:
        return Segment(number, packed(items), packed(times))
    except OverflowError as error:
        raise StateCorrupted(f"a folded segment holds a number of more than 64 bits: {error}") from error


_DAMAGED: Final = ("Corruption", "IO error: No such file or directory")
_LOCKED: Final = ("lock hold by current process", "While lock file")


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    """Translate errors of RocksDB (by their first words) and of the codec into this package's, with the folder."""
    try:
        yield
    except StateCorrupted as error:
        raise _corrupted(folder, str(error)) from error
    except StateError:
        raise
    except OSError as error:
        raise StoreUnwritable(f"{folder}: {error}") from error
    except Exception as error:
        message = str(error)
        if message.startswith(_DAMAGED):
            raise _corrupted(folder, message) from error
        if message.startswith("IO error"):
            # The message ends with the path, which may contain any words. RocksDB's own words come before it.
            if any(words in message.split(str(folder), 1)[0] for words in _LOCKED):
                raise StoreLocked(
                    f"{folder} is locked: another process has it open, and no second worker should use this folder ({message})"
                ) from error
            raise StoreUnwritable(f"{folder}: {message}") from error
        if "(os error " in message:  # from rocksdict, which keeps a small file of its own beside RocksDB's
            raise StoreUnwritable(f"{folder}: {message}") from error
        raise


def _corrupted(folder: Path, message: str) -> StateCorrupted:
    error = StateCorrupted(f"{folder} cannot be read: {message}")
    error.folder = folder
    return error
