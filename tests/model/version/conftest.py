"""Registries of every sort: a folder, fsspec's memory, and a bucket of a server in this process."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from tests.buckets import bucket, s3

__all__ = ["bucket", "s3"]


@pytest.fixture(params=["folder", "memory", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty registry."""
    match request.param:
        case "folder":
            yield str(tmp_path / "registry")
        case "bucket":
            yield request.getfixturevalue("bucket")
        case _:
            uri = f"memory://{uuid4().hex}"
            yield uri
            fs, path = fsspec.url_to_fs(uri)
            if fs.exists(path):
                fs.rm(path, recursive=True)
