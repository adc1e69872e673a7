"""Which files a log has, and what each is: Parquet, JSON lines or separated text, compressed or not."""

import bz2
import glob
import gzip
import lzma
import os
import urllib.parse
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal, TypeAlias, cast

from model.errors import LogUnreadable
from model.log.wording import listed, shown_path

Format: TypeAlias = Literal["Parquet", "JSON lines", "separated text"]

EXPECTED: Final = "Parquet, CSV, TSV, other separated text, or JSON lines"

_ENDINGS: Final = frozenset(
    {".parquet", ".pq", ".csv", ".tsv", ".dat", ".data", ".inter", ".txt", ".jsonl", ".ndjson", ".json"}
)
_COMPRESSED: Final[Mapping[bytes, tuple[str, Callable[[Path], Any]]]] = {
    b"\x1f\x8b": (".gz", gzip.open),
    b"BZh": (".bz2", bz2.open),
    b"\xfd7zXZ\x00": (".xz", lzma.open),
}
_OTHERS: Final[Mapping[bytes, str]] = {
    b"\x28\xb5\x2f\xfd": "zstd, which is not read here: decompress it first, `zstd -d`",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet: unpack it first, or export the sheet as CSV",
    b"Obj\x01": "Avro",
    b"ORC": "ORC",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet: export it as CSV",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "PDF",
}
DAMAGED: Final = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""What reading a damaged compressed file raises."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a log."""

    path: Path
    format: Format
    folders: Mapping[str, str | None]
    """What the folders on the way to the file say: `day=2024-01-01` is a column `day`, as Hive and Spark write it."""

    @property
    def name(self) -> str:
        return shown_path(self.path)


def parts(source: str, notes: list[str]) -> list[Part]:
    """The files of a log in the order of their names, without hidden and empty ones.

    Args:
        source: a file, a folder with files at any depth, or a glob.
        notes: the files of folders that are passed over because of their names are appended.

    Raises:
        LogUnreadable: there is no file, a file cannot be read, or files have several formats.
    """
    try:
        paths, others = _paths(source)
        filled = [path for path in paths if path.stat().st_size > 0]
    except (OSError, ValueError) as error:
        raise LogUnreadable(f"{shown_path(source)}: cannot be read: {_reason(error)}") from error
    if not paths and others:
        files = "1 file" if len(others) == 1 else f"{len(others)} files"
        raise LogUnreadable(
            f"{shown_path(source)}: the folder has {files}, none with an ending of a log ({' '.join(sorted(_ENDINGS))}): "
            f"{_some(others)}. Name the files of the log with a glob"
        )
    if not paths:
        raise LogUnreadable(f"{shown_path(source)}: no such log. Expected a file, a folder or a glob: {EXPECTED}")
    if not filled:
        raise LogUnreadable(f"{shown_path(source)}: the log is empty: it has no bytes")
    found = [Part(path, _format(path), _folders(path, source)) for path in filled]
    kinds = {part.format: part for part in reversed(found)}
    if len(kinds) > 1:
        examples = ", ".join(f"{part.name} is {kind}" for kind, part in sorted(kinds.items()))
        raise LogUnreadable(f"{shown_path(source)}: files of several formats: {examples}. A log must have one")
    if others:
        files = "1 file of the folder is" if len(others) == 1 else f"{len(others)} files of the folder are"
        notes.append(f"{files} passed over: {_some(others)}")
    return found


def opened(path: Path) -> IO[bytes]:
    """The bytes of a file, decompressed."""
    with path.open("rb") as raw:
        head = raw.read(8)
    for magic, (_, decompressed) in _COMPRESSED.items():
        if head.startswith(magic):
            return cast("IO[bytes]", decompressed(path))
    return path.open("rb")


def _paths(source: str) -> tuple[list[Path], list[Path]]:
    """The files of a log, and those that are passed over because of their names."""
    path = Path(source)
    if path.is_dir():
        return _in_folder(path)
    if path.is_file():
        return [path], []
    if path.exists():
        raise LogUnreadable(f"{shown_path(source)}: is neither a file nor a folder. Write the log to a file first")
    paths: list[Path] = []
    others: list[Path] = []
    for match in sorted(Path(match) for match in glob.glob(source, recursive=True)):  # noqa: PTH207  the pattern may be absolute
        found, passed_over = _in_folder(match) if match.is_dir() else ([match], [])
        paths += [file for file in found if file.is_file()]
        others += passed_over
    chosen = set(paths)
    return paths, [file for file in others if file not in chosen]


def _in_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    files = []
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _hidden(name)]
        files += [Path(here, name) for name in names if not _hidden(name)]
    files = sorted(file for file in files if file.is_file())
    # Hadoop writes parts without an ending. Beside files with one, a file without is a README or a licence.
    found = [file for file in files if _ending(file) in _ENDINGS] or [file for file in files if not file.suffix]
    chosen = set(found)
    return found, [file for file in files if file not in chosen]


def _some(files: list[Path]) -> str:
    """The names of at most three files."""
    names = listed([file.name for file in files[:3]])
    return f"{names}, …" if len(files) > 3 else names


def _hidden(name: str) -> bool:
    """A name that writers give to what is not data: `_SUCCESS`, `.part-0.crc`."""
    return name.startswith((".", "_"))


def _ending(path: Path) -> str:
    compressed = {ending for ending, _ in _COMPRESSED.values()} | {".zst"}
    return (path.with_suffix("") if path.suffix.lower() in compressed else path).suffix.lower()


def _folders(path: Path, source: str) -> dict[str, str | None]:
    root = Path(source)
    between = path.relative_to(root).parts[:-1] if root.is_dir() else path.parts[:-1]
    found: dict[str, str | None] = {}
    for name in between:
        column, equals, value = name.partition("=")
        if equals and column:
            found[column] = None if value == "__HIVE_DEFAULT_PARTITION__" else urllib.parse.unquote(value)
    return found


def _format(path: Path) -> Format:
    """What the first bytes of a file say. Its name is not asked."""
    try:
        with opened(path) as stream:
            head = stream.read(4096)
    except DAMAGED as error:
        raise LogUnreadable(f"{shown_path(path)}: cannot be read: {_reason(error)}") from error
    if head.startswith(b"PAR1"):
        return "Parquet"
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            raise LogUnreadable(f"{shown_path(path)}: is {what}. Expected {EXPECTED}")
    # Zero bytes: the text is UTF-16. A byte order mark comes before the first character.
    first = head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")[:1]
    if first == b"[":
        raise LogUnreadable(
            f"{shown_path(path)}: is a JSON array. Expected one object a line: `jq -c '.[]'` makes lines of an array"
        )
    return "JSON lines" if first == b"{" else "separated text"


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, ValueError):
        return "the path has a zero byte"
    return "the compressed data is cut short or damaged"
