"""Files in a folder, or behind a URL of fsspec (`s3://`, `gs://`, `memory://`). The only file that knows fsspec.

Nothing is renamed, because buckets cannot rename. What a backend raises is said as `VersionUnavailable`; a file or
folder that is not there is Python's FileNotFoundError.

A backend takes its endpoint and its credentials from where its own library looks for them (docs/registry.md).
"""

import hashlib
import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fsspec

from model.errors import VersionUnavailable, how_to_install

EXTRAS: Final = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""The extra that brings the backend of a URL."""

WITHOUT_FOLDERS: Final = ("memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
"""Backends in which a folder is there as soon as a file in it is. To make one there can make a whole bucket."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder in a folder. `size`: bytes of the file."""

    name: str
    size: int
    is_file: bool


def local(uri: str) -> Path | None:
    """The folder of this machine that `uri` means; None for a URL."""
    return None if "://" in uri else Path(uri)


def join(uri: str, *names: str) -> str:
    """A file or folder in the folder `uri`."""
    folder = local(uri)
    return posixpath.join(uri, *names) if folder is None else str(folder.joinpath(*names))


def entries(uri: str) -> list[Entry]:
    """What is in a folder, in no order.

    Raises:
        FileNotFoundError: there is no such folder. In a bucket, a folder without files is none.
        VersionUnavailable: it cannot be read.
    """
    with _told(uri, "read"):
        fs, path = _backend(uri)
        own = path.rstrip("/").rpartition("/")[2]
        found = []
        for each in fs.ls(path, detail=True):
            name = str(each["name"]).rstrip("/").rpartition("/")[2]
            if name and not (name == own and str(each["name"]).rstrip("/") == path.rstrip("/")):
                found.append(Entry(name, int(each["size"] or 0), each["type"] == "file"))
        return found


def read(uri: str) -> bytes:
    """The bytes of a file.

    Raises:
        FileNotFoundError: there is no such file.
        VersionUnavailable: it cannot be read.
    """
    with _told(uri, "read"):
        fs, path = _backend(uri)
        return bytes(fs.cat_file(path))


def sha256(uri: str) -> str:
    """The SHA-256 of a file in hexadecimal, without having all of it in memory. Raises what `read` raises."""
    with _told(uri, "read"):
        fs, path = _backend(uri)
        with fs.open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def copy(uri: str, to: Path) -> None:
    """Copy a file to this machine. Raises what `read` raises."""
    with _told(uri, "read"):
        fs, path = _backend(uri)
        fs.get_file(path, str(to))


def write(uri: str, data: bytes) -> None:
    """Write a file, and its folders.

    Raises:
        VersionUnavailable: it cannot be written.
    """
    with _written(uri):
        if (there := local(uri)) is not None:
            _write_local(there, data, "wb")
            return
        fs, path = _backend(uri)
        _make_folders(fs, path)
        fs.pipe_file(path, data)


def create(uri: str, data: bytes) -> bool:
    """Write a file that was not there; of several processes that do so at once, one succeeds.

    Returns:
        Whether this call wrote it. False: it was there.

    Raises:
        VersionUnavailable: it cannot be written.
    """
    with _written(uri):
        try:
            if (there := local(uri)) is not None:
                _write_local(there, data, "xb")
                return True
            fs, path = _backend(uri)
            _make_folders(fs, path)
            fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        return True


def remove(uri: str) -> None:
    """Remove a file, if it is there.

    Raises:
        VersionUnavailable: it cannot be removed.
    """
    try:
        with _told(uri, "written"):
            fs, path = _backend(uri)
            fs.rm_file(path)
    except FileNotFoundError:
        pass


def _backend(uri: str) -> tuple[Any, str]:
    # A listing that is kept would hide what other processes write.
    backend, path = fsspec.url_to_fs(uri, use_listings_cache=False)
    return backend, path


def _make_folders(fs: Any, path: str) -> None:
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    if not any(protocol in WITHOUT_FOLDERS for protocol in protocols):
        fs.makedirs(posixpath.dirname(path), exist_ok=True)


def _write_local(path: Path, data: bytes, mode: str) -> None:
    """Write a file so that it survives a loss of power: what is written after it relies on it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open(mode) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _written(uri: str) -> Iterator[None]:
    try:
        with _told(uri, "written"):
            yield
    except FileNotFoundError as error:
        raise _unavailable(uri, "written", error) from error


@contextmanager
def _told(uri: str, done: str) -> Iterator[None]:
    """Say as VersionUnavailable what a backend raises. Its libraries have errors of their own, of no common class."""
    try:
        yield
    except (FileNotFoundError, VersionUnavailable):
        raise
    except ImportError as error:
        protocol = uri.partition("://")[0]
        how = how_to_install(EXTRAS[protocol]) if protocol in EXTRAS else "install the fsspec backend of this protocol"
        raise _unavailable(uri, done, error, how) from error
    except Exception as error:
        raise _unavailable(uri, done, error) from error


def _unavailable(uri: str, done: str, error: Exception, how: str | None = None) -> VersionUnavailable:
    first = (str(error).strip().splitlines() or [""])[0][:300] or type(error).__name__
    return VersionUnavailable(
        f"{uri}: the registry cannot be {done}: {first}. "
        f"{how or 'REC2PM_MODELS, --registry or --out says where it is; the environment has its endpoint and credentials'}"
    )
