"""A file of frames: what a shard has made so far, piece by piece, so that a run that was killed goes on.

Each frame says up to which offset the shard had come when it was made. Frames are appended before the store takes the
state of the same piece. So after a kill the file is as far as the store, or further: what is further is cut off.
"""

import io
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import polars as pl

_HEAD: Final = struct.Struct("<qI")
"""The offset that the shard reaches with the frame, and the bytes that follow."""


class Frame(NamedTuple):
    """A piece of a shard's work: tables by name, and figures."""

    reaches: int
    tables: Mapping[str, pl.DataFrame]
    figures: Mapping[str, Any]


class Frames:
    """The frames of one shard."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def there(self) -> bool:
        """Whether an earlier process began the shard."""
        return self._path.exists()

    def reaches(self) -> int | None:
        """The offset that the shard has reached; None if it has not begun."""
        return max((reached for _, _, reached in self._places()), default=None)

    def append(self, frame: Frame) -> None:
        """Write one frame. A kill may leave it half written; `keep` removes such a rest."""
        body = msgspec.msgpack.encode((frame.figures, {name: _packed(table) for name, table in frame.tables.items()}))
        with self._path.open("ab") as file:
            file.write(_HEAD.pack(frame.reaches, len(body)) + body)

    def keep(self, reaches: int) -> None:
        """Cut off what is beyond this offset, and a frame that was not written to its end."""
        if not self._path.exists():
            return
        end = 0
        for start, size, reached in self._places():
            if reached > reaches:
                break
            end = start + size
        with self._path.open("r+b") as file:
            file.truncate(end)

    def read(self) -> Iterator[Frame]:
        """All frames, in the order in which they were written."""
        for start, size, reaches in self._places():
            with self._path.open("rb") as file:
                file.seek(start + _HEAD.size)
                figures, tables = msgspec.msgpack.decode(file.read(size - _HEAD.size))
            yield Frame(reaches, {name: pl.read_ipc_stream(io.BytesIO(data)) for name, data in tables.items()}, figures)

    def _places(self) -> Iterator[tuple[int, int, int]]:
        """Each whole frame: where it begins, its bytes with the head, and what it reaches."""
        if not self._path.exists():
            return
        whole = self._path.stat().st_size
        with self._path.open("rb") as file:
            start = 0
            while start + _HEAD.size <= whole:
                file.seek(start)
                reaches, body = _HEAD.unpack(file.read(_HEAD.size))
                size = _HEAD.size + body
                if start + size > whole:
                    return
                yield start, size, reaches
                start += size


def _packed(table: pl.DataFrame) -> bytes:
    into = io.BytesIO()
    table.write_ipc_stream(into, compression="lz4")
    return into.getvalue()
