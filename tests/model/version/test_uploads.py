"""Registries in folders, in memory and in buckets: uploads that are killed, half-copied folders, two trainers at once.

A version is seen whole or not at all. Nothing is renamed, so this does not rest on what a file system does at once.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.errors import DigestMismatch, ModelNotFound, VersionUnavailable
from model.version import artifact, storage
from model.version.cache import Cache
from model.version.manifest import Manifest
from model.version.registry import ModelVersion, Registry
from model.version.runtime import Runtime
from tests.buckets import KEYS
from tests.model import tiny
from tests.model.version import made

FILES = list(made.files("made", 1))
"""In the order in which they are written; the manifest is the last one."""


class Killed(BaseException):
    """What no handler of an error sees, as a SIGKILL."""


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Registry.add` writes versions that nothing can load, without compiling anything."""

    def files(_: object, manifest: Manifest, *__: object) -> dict[str, bytes]:
        return made.files(manifest.name, int(manifest.version))

    monkeypatch.setattr(artifact, "files", files)


SERVING = tiny.serving()
MANIFEST = replace(tiny.manifest(SERVING), name="made")


def add(root: str) -> ModelVersion:
    return Registry(root).add(SERVING, MANIFEST, tiny.IDS)


def kill_after(monkeypatch: pytest.MonkeyPatch, files: int) -> None:
    """Let `Registry.add` die when it has written so many files, and do nothing after that."""
    write, left = storage.write, iter(range(files))

    def write_or_die(uri: str, data: bytes) -> None:
        if next(left, None) is None:
            raise Killed
        write(uri, data)

    monkeypatch.setattr(storage, "write", write_or_die)
    monkeypatch.setattr(storage, "remove", lambda _: pytest.fail("a dead process has removed something"))
    monkeypatch.setattr(Registry, "_withdraw", lambda *_: None)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("files", range(len(FILES)))
def test_an_upload_that_is_killed_after_a_file_is_never_seen(root: str, tmp_path: Path, files: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, files)
        with pytest.raises(Killed):
            add(root)
    registry = Registry(root)
    assert {entry.name for entry in storage.entries(f"{root}/made/1")} == {"claim", *FILES[:files]}
    assert registry.names() == []
    assert registry.versions("made") == []
    for reference in (None, "made"):
        with pytest.raises(ModelNotFound, match=r"it has no whole version .*made/1: it has no manifest.json"):
            registry.resolve(reference)
    with pytest.raises(ModelNotFound, match=r"made/1 is not a whole version: it has no manifest.json"):
        registry.resolve("made@1")
    half = ModelVersion("made", 1, f"{root}/made/1")
    for load in (half.manifest, lambda: Runtime.load(half.uri), lambda: Cache(tmp_path / "cache").fetch(half)):
        with pytest.raises(VersionUnavailable, match=r"made/1/manifest\.json: no such file"):
            load()
    assert add(root).reference == "made@2", "its number is not used again"
    assert registry.names() == ["made"]
    assert [version.reference for version in registry.versions("made")] == ["made@2"]
    assert registry.resolve(None).reference == registry.resolve("made").reference == "made@2"
    assert {entry.name for entry in storage.entries(f"{root}/made/1")} == {"claim", *FILES[:files]}


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("files", range(len(FILES)))
def test_an_upload_that_fails_leaves_nothing(root: str, files: int) -> None:
    """Unlike one that is killed: it says so, and cleans up."""
    write, left = storage.write, iter(range(files))

    def write_or_fail(uri: str, data: bytes) -> None:
        if next(left, None) is None:
            raise VersionUnavailable("the disk is full")
        write(uri, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "write", write_or_fail)
        with pytest.raises(VersionUnavailable, match="the disk is full"):
            add(root)
    with pytest.raises(FileNotFoundError):
        storage.entries(f"{root}/made/1")
    assert add(root).reference == "made@1"


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.99])
def test_a_manifest_that_is_cut_short_is_none(root: str, share: float) -> None:
    """A folder of this machine may have it after a kill; a bucket never has."""
    version = made.put(root)
    data = storage.read(f"{version.uri}/manifest.json")
    storage.write(f"{version.uri}/manifest.json", data[: int(share * len(data))])
    with pytest.raises(ModelNotFound, match=r"it has no whole version .*made/1: manifest\.json: not a manifest"):
        Registry(root).resolve("made")


@pytest.mark.parametrize("files", range(len(FILES)))
def test_a_folder_that_is_being_copied_is_no_version(root: str, files: int) -> None:
    """In the order of their names, as `cp -r` copies: the manifest comes before the program."""
    whole = dict(sorted(made.files("made", 1).items()))
    assert list(whole).index("manifest.json") < list(whole).index("model.pt")
    for name, data in list(whole.items())[:files]:
        storage.write(f"{root}/made/1/{name}", data)
    if files:
        last, data = list(whole.items())[files]
        storage.write(f"{root}/made/1/{last}", data[:-1])
    with pytest.raises(ModelNotFound):
        Registry(root).resolve("made")
    for name, data in whole.items():
        storage.write(f"{root}/made/1/{name}", data)
    assert Registry(root).resolve("made").reference == "made@1"


@pytest.mark.parametrize("file", FILES)
def test_files_that_the_manifest_does_not_mean_are_refused_by_name(root: str, file: str) -> None:
    """Of the right length, so that only a hash tells it; the manifest by what the reference says."""
    version = made.put(root)
    pinned = Registry(root).resolve(f"made@1#{version.digest()}")
    storage.write(f"{version.uri}/{file}", made.files("made", 1, seed=1)[file])
    with pytest.raises(
        DigestMismatch, match=rf"{version.uri}/{file} has sha256 [0-9a-f]{{64}}, expected [0-9a-f]{{64}}"
    ):
        pinned.files().check()
    if file == "manifest.json":
        with pytest.raises(DigestMismatch, match=f"{version.uri}/{file} has sha256"):
            Registry(root).resolve(f"made@1#{pinned.sha256}")
    if file in ("model.pt", "catalogue.json", "manifest.json"):
        with pytest.raises(DigestMismatch, match=f"{version.uri}/{file} has sha256"):
            Runtime.load(pinned.uri, pinned.sha256)


@pytest.mark.usefixtures("fast")
def test_two_trainers_at_once_get_a_version_each(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both choose number 1, since neither has claimed it when the other looks; the later one moves on to 2."""
    together, folders = threading.Barrier(2), Registry._folders

    def look_together(self: Registry, name: str) -> list[ModelVersion]:
        found = folders(self, name)
        together.wait(timeout=60)
        return found

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as trainers:
        patch.setattr(Registry, "_folders", look_together)
        found = list(trainers.map(add, [root, root]))
    assert sorted(version.reference for version in found) == ["made@1", "made@2"]
    assert [version.manifest().version for version in Registry(root).versions("made")] == ["1", "2"]


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("root", ["folder", "bucket"], indirect=True)
def test_many_trainers_at_once_get_a_version_each(root: str) -> None:
    with ThreadPoolExecutor(8) as trainers:
        found = list(trainers.map(add, [root] * 16))
    assert sorted(version.version for version in found) == list(range(1, 17))
    for version in Registry(root).versions("made"):
        version.files().check()


def test_a_version_in_a_bucket_is_one_like_in_a_folder(bucket: str, version: ModelVersion) -> None:
    there = tiny.add(bucket)
    registry = Registry(bucket)
    assert registry.resolve(None) == there
    assert registry.names() == ["tiny"]
    files = {entry.name for entry in storage.entries(there.uri)}
    assert files == {path.name for path in version.folder.iterdir()}
    near, far = Runtime.load(version.folder), Runtime.load(there.uri, there.digest())
    rows, none = np.arange(1, 25).reshape(2, 12), np.zeros((2, near.state_floats), np.float32)
    assert (near.fold(none, rows).memory == far.fold(none, rows).memory).all()
    assert artifact.load_weights(there.uri).item_ids == tuple(tiny.IDS)


KILLED = """
import os, signal, sys
from model.version import artifact, storage
from model.version.registry import Registry
from tests.model.version import made, test_uploads

root, after = sys.argv[1], int(sys.argv[2])
write, done = storage.write, 0

def write_and_die(uri, data):
    global done
    if done == after:
        os.kill(os.getpid(), signal.SIGKILL)
    write(uri, data)
    done += 1

artifact.files = lambda _, manifest, *__: made.files("made", int(manifest.version))
storage.write = write_and_die
test_uploads.add(root)
"""


@pytest.mark.parametrize("root", ["folder", "bucket"], indirect=True)
def test_a_trainer_that_is_killed_leaves_its_number_taken(root: str) -> None:
    """The last of the files before the manifest is written."""
    ended = subprocess.run([sys.executable, "-c", KILLED, root, str(len(FILES) - 1)], check=False, env=dict(os.environ))
    assert ended.returncode == -signal.SIGKILL
    assert {entry.name for entry in storage.entries(f"{root}/made/1")} == {"claim", *FILES[:-1]}
    assert Registry(root).names() == []
    assert tiny.add(root, "made").reference == "made@2"


@pytest.mark.parametrize(
    ("uri", "environment", "message"),
    [
        ("nope://shop/models", {}, "Protocol not known: nope"),
        ("s3://shop/models", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "Could not connect to the endpoint URL"),
    ],
)
def test_a_registry_that_does_not_answer_is_said_with_the_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uri: str, environment: Mapping[str, str], message: str
) -> None:
    for name, value in {**KEYS, "AWS_MAX_ATTEMPTS": "1", **environment}.items():
        monkeypatch.setenv(name, value)
    version = ModelVersion("made", 1, f"{uri}/made/1")
    for ask in (lambda: Registry(uri).resolve(None), lambda: Cache(tmp_path / "cache").fetch(version)):
        with pytest.raises(
            VersionUnavailable, match=f"^{uri}.*: the registry cannot be read: {message}.*REC2PM_MODELS"
        ):
            ask()


def test_a_bucket_that_is_not_there_is_not_made(bucket: str) -> None:
    with pytest.raises(VersionUnavailable, match="the registry cannot be written: The specified bucket does not exist"):
        storage.create("s3://nobody/models/made/1/claim", b"")
    with pytest.raises(ModelNotFound, match="s3://nobody/models has no model"):
        Registry("s3://nobody/models").resolve(None)


@pytest.mark.parametrize(("uri", "package", "extra"), [("s3://a/b", "s3fs", "s3"), ("gcs://a/b", "gcsfs", "gcs")])
def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, uri: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, extra, raising=False)
    with pytest.raises(VersionUnavailable, match=rf"the registry cannot be read: .*pip install '\.\[{extra}\]'"):
        Registry(uri).names()
