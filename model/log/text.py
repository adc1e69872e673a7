"""The bytes of a text file as UTF-8, in blocks of whole lines."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from model.errors import LogUnreadable
from model.log.source import DAMAGED, opened
from model.log.wording import shown_path

BLOCK: Final = 1 << 24
"""Bytes of a block. A piece of a log is made of one, and takes a few times its size in memory."""

LONGEST_LINE: Final = 1 << 26
_SAMPLE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines: valid UTF-8, each with `\\n` at its end."""

    lines: bytes
    first_line: int
    """The number of the first line in the file, from 1."""


@dataclass(slots=True)
class TextFile:
    """A text file in UTF-8, UTF-16 or Latin-1, compressed or not. Its first bytes say which; a file that is not UTF-8
    is Latin-1 if nothing in it looks like UTF-8.
    """

    path: Path
    notes: list[str] = field(default_factory=list)
    """What a reader should know: the encoding, if it was guessed."""

    def sample(self) -> str:
        """The first whole lines."""
        for block in self.blocks(_SAMPLE):
            return block.lines.decode()
        return ""

    def blocks(self, size: int = BLOCK) -> Iterator[Block]:
        """All lines.

        Raises:
            LogUnreadable: the file is damaged, is not text, or has a line that is too long.
        """
        decoded = _Decoded(self.path)
        try:
            with opened(self.path) as stream:
                yield from decoded.blocks(stream, size)
        except DAMAGED as error:
            reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else "damaged or cut short"
            raise LogUnreadable(
                f"{shown_path(self.path)}: cannot be read after line {decoded.line - 1}: {reason}"
            ) from error
        self.notes[:] = decoded.notes


class _Decoded:
    def __init__(self, path: Path) -> None:
        self.line = 1
        self.notes: list[str] = []
        self._path = path
        self._latin = False
        self._beyond_ascii = False

    def blocks(self, stream: IO[bytes], size: int) -> Iterator[Block]:
        raw = _full(stream, size)
        encoding = _wide(raw)
        wide = None if encoding is None else codecs.getincrementaldecoder(encoding)()
        raw = raw.removeprefix(codecs.BOM_UTF8)
        returns_only: bool | None = None
        rest = b""
        while True:
            last = not raw
            if wide is not None:
                raw = self._narrow(wide, raw)
            if returns_only is None:
                returns_only = b"\r" in raw and b"\n" not in raw
            rest += raw.replace(b"\r", b"\n") if returns_only else raw
            if last and rest and not rest.endswith(b"\n"):
                rest += b"\n"
            end = rest.rfind(b"\n") + 1
            if end:
                block, rest = rest[:end], rest[end:]
                text = self._utf8(block)
                yield Block(text, self.line)
                self.line += text.count(b"\n")
            elif len(rest) > LONGEST_LINE:
                raise LogUnreadable(
                    f"{shown_path(self._path)}, line {self.line}: has more than {LONGEST_LINE:,} bytes. Is it text?"
                )
            if last:
                return
            raw = _full(stream, size)

    def _narrow(self, wide: codecs.IncrementalDecoder, raw: bytes) -> bytes:
        try:
            return wide.decode(raw, final=not raw).encode()
        except UnicodeError as error:
            raise LogUnreadable(
                f"{shown_path(self._path)}: not UTF-16 after line {self.line}, though it begins like it"
            ) from error

    def _utf8(self, block: bytes) -> bytes:
        if b"\0" in block:
            number = self.line + block[: block.index(b"\0")].count(b"\n")
            raise LogUnreadable(f"{shown_path(self._path)}, line {number}: has a zero byte, so it is not text")
        if not self._latin:
            if block.isascii():
                return block.replace(b"\r\n", b"\n")
            try:
                block.decode()
            except UnicodeDecodeError as error:
                number = self.line + block[: error.start].count(b"\n")
                if self._beyond_ascii or _has_utf8(block):
                    raise LogUnreadable(
                        f"{shown_path(self._path)}, line {number}: is not UTF-8, though other lines are. Correct the line"
                    ) from error
                self._latin = True
                self.notes.append(f"{shown_path(self._path)} is not UTF-8 (line {number}), and was read as Latin-1")
            else:
                self._beyond_ascii = True
        if self._latin:
            block = block.decode("latin-1").encode()
        return block.replace(b"\r\n", b"\n")


def _full(stream: IO[bytes], size: int) -> bytes:
    """The next bytes; fewer than `size` only at the end."""
    chunks: list[bytes] = []
    missing = size
    while missing and (chunk := stream.read(missing)):
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)


def _wide(head: bytes) -> str | None:
    """The encoding of text whose characters have two bytes or four; None for others."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # Without a mark: nearly every second byte of Western text is zero. The first line has the names of columns.
    start = head[:64]
    even, odd = start[::2].count(0), start[1::2].count(0)
    if len(start) >= 8 and max(even, odd) > len(start) // 4 and min(even, odd) == 0:
        return "utf-16-le" if odd else "utf-16-be"
    return None


def _has_utf8(block: bytes) -> bool:
    """Whether there is a character beyond ASCII in valid UTF-8."""
    return not block.decode(errors="ignore").isascii()
