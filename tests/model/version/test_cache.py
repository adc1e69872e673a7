"""Copies of versions: always whole, also after a kill, and never removed from under a process that uses them."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from model.errors import DigestMismatch, VersionUnavailable
from model.version import storage
from model.version.cache import Cache
from model.version.checked_files import CheckedFiles
from model.version.registry import ModelVersion
from tests.model.version import made

FILES = list(made.files("made", 1))


def copies(cache: Cache) -> set[str]:
    """The versions of which there is a copy; nothing else may be there but their locks."""
    names = {path.name for path in cache.folder.iterdir()}
    whole = {name for name in names if len(name) == 64}
    assert names <= {f"{name}{end}" for name in whole for end in ("", ".lock", ".copy")}
    return whole


def is_whole(folder: Path, version: ModelVersion) -> bool:
    files = made.files(version.name, version.version)
    return {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_a_copy_has_every_file_and_is_made_once(root: str, tmp_path: Path) -> None:
    version, cache = made.put(root), Cache(tmp_path / "cache")
    folder = cache.fetch(version)
    assert is_whole(folder, version)
    assert CheckedFiles.at(folder).sha256 == folder.name == version.digest()
    stamp = (folder / "model.pt").stat().st_ino
    assert cache.fetch(version) == Cache(cache.folder).fetch(version) == folder == cache.find(version.digest())
    assert (folder / "model.pt").stat().st_ino == stamp
    assert copies(cache) == {version.digest()}


def test_a_copy_serves_while_the_registry_is_away(tmp_path: Path) -> None:
    version, cache = made.put(str(tmp_path / "registry")), Cache(tmp_path / "cache")
    pinned = replace(version, sha256=version.digest())
    folder = cache.fetch(version)
    (tmp_path / "registry").rename(tmp_path / "away")
    assert cache.fetch(pinned) == Cache(cache.folder).fetch(pinned) == folder
    with pytest.raises(VersionUnavailable, match=r"made.1.manifest\.json: no such file"):
        cache.fetch(version)
    assert cache.newest() == folder


@pytest.mark.parametrize("file", FILES)
def test_wrong_bytes_are_refused_by_name_and_not_kept(root: str, tmp_path: Path, file: str) -> None:
    version, cache = made.put(root), Cache(tmp_path / "cache")
    pinned = replace(version, sha256=version.digest())
    storage.write(storage.join(version.uri, file), made.files("made", 1, seed=1)[file])
    with pytest.raises(DigestMismatch, match=rf"{version.uri}/{file} has sha256 [0-9a-f]{{64}}, expected"):
        cache.fetch(pinned)
    assert cache.newest() is None
    assert not cache.folder.exists() or not [path for path in cache.folder.iterdir() if path.is_dir()]
    made.put(root)
    assert is_whole(cache.fetch(pinned), version)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(root: str, tmp_path: Path, file: str) -> None:
    version, cache = made.put(root), Cache(tmp_path / "cache")
    storage.remove(storage.join(version.uri, file))
    with pytest.raises(VersionUnavailable, match=rf"{version.uri}/{file}: no such file"):
        cache.fetch(version)
    made.put(root)
    assert is_whole(cache.fetch(version), version)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("how", ["removed", "cut short", "changed"])
def test_a_damaged_copy_is_made_again(root: str, tmp_path: Path, file: str, how: str) -> None:
    version, cache = made.put(root), Cache(tmp_path / "cache")
    path = cache.fetch(version) / file
    data = path.read_bytes()
    match how:
        case "removed":
            path.unlink()
        case "cut short":
            path.write_bytes(data[:-1])
        case "changed":
            path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    assert cache.find(version.digest()) is None
    assert cache.newest() is None
    assert is_whole(cache.fetch(version), version)
    assert copies(cache) == {version.digest()}


def test_the_two_that_were_used_last_stay(root: str, tmp_path: Path) -> None:
    versions = [made.put(root, number=number) for number in range(1, 5)]
    digests = [version.digest() for version in versions]
    cache = Cache(tmp_path / "cache")
    for version in versions[:3]:
        cache.fetch(version)
    assert copies(cache) == set(digests[1:3])
    cache.fetch(versions[1])
    assert (cache.newest() or Path()).name == digests[1]
    cache.fetch(versions[3])
    assert copies(cache) == {digests[1], digests[3]}, "version 3 was used longer ago than version 2"
    assert (Cache(cache.folder).newest() or Path()).name == digests[3]


def test_a_refused_version_is_no_newest_and_goes_first(root: str, tmp_path: Path) -> None:
    versions = [made.put(root, number=number) for number in range(1, 5)]
    digests = [version.digest() for version in versions]
    cache = Cache(tmp_path / "cache")
    cache.fetch(versions[0])
    for bad in versions[1:3]:
        cache.refused(cache.fetch(bad))
        assert (cache.newest() or Path()).name == digests[0]
    cache.fetch(versions[3])
    assert copies(cache) == {digests[0], digests[3]}


def test_what_another_process_was_just_handed_out_stays(root: str, tmp_path: Path) -> None:
    versions = [made.put(root, number=number) for number in range(1, 5)]
    one, other = Cache(tmp_path / "cache", keep=1), Cache(tmp_path / "cache", keep=1)
    theirs = one.fetch(versions[0])
    for version in versions[1:]:
        other.fetch(version)
        assert is_whole(theirs, versions[0])
    one.fetch(versions[3])
    other.fetch(versions[3])
    assert copies(one) == {versions[3].digest()}


def test_a_folder_that_cannot_be_written_is_said_in_words(root: str, tmp_path: Path) -> None:
    version = made.put(root)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(VersionUnavailable, match=rf"made.1 cannot be kept in {tmp_path}/cache: "):
        Cache(tmp_path / "cache").fetch(version)


KILLED = """
import os, signal, sys
from pathlib import Path
from model.version import cache, storage
from model.version.registry import ModelVersion

uri, folder, after = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
copy, done = storage.copy, 0

def copy_and_die(where, to):
    global done
    if done == after:
        to.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    copy(where, to)
    done += 1

if after == 4:
    cache.Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
storage.copy = copy_and_die
cache.Cache(folder).fetch(ModelVersion("made", 1, uri))
"""


@pytest.mark.parametrize("files", [0, 2, len(FILES) - 1])
def test_a_process_that_is_killed_in_a_copy_leaves_no_half_version(tmp_path: Path, files: int) -> None:
    """After so many whole files of four; the last time, before the copy gets its name."""
    version, cache = made.put(str(tmp_path / "registry")), Cache(tmp_path / "cache")
    ended = subprocess.run([sys.executable, "-c", KILLED, version.uri, cache.folder, str(files)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [path.name for path in cache.folder.iterdir() if path.is_dir()] == [f"{version.digest()}.part"]
    assert cache.newest() is None
    assert cache.find(version.digest()) is None
    assert is_whole(cache.fetch(version), version)
    assert copies(cache) == {version.digest()}


def test_what_a_killed_process_left_of_another_version_is_removed(tmp_path: Path) -> None:
    root, cache = str(tmp_path / "registry"), Cache(tmp_path / "cache")
    version, other, third = (made.put(root, number=number) for number in (1, 2, 3))
    subprocess.run([sys.executable, "-c", KILLED, version.uri, cache.folder, "1"], check=False)
    for each in (other, third):
        cache.fetch(each)
    assert copies(cache) == {other.digest(), third.digest()}


TOGETHER = """
import random, sys
from pathlib import Path
from model.version.cache import Cache
from model.version.registry import ModelVersion
from tests.model.version.test_cache import is_whole

root, folder, seed = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
drawn = random.Random(seed)
for _ in range(15):
    cache = Cache(folder, keep=1)
    for number in drawn.sample(range(1, 5), 2):
        version = ModelVersion("made", number, f"{root}/made/{number}")
        assert is_whole(cache.fetch(version), version), (seed, number)
"""


def test_processes_that_share_a_folder_never_see_less_than_a_whole_version(tmp_path: Path) -> None:
    root, folder = str(tmp_path / "registry"), tmp_path / "cache"
    versions = [made.put(root, number=number) for number in range(1, 5)]
    processes = [
        subprocess.Popen([sys.executable, "-c", TOGETHER, root, folder, str(seed)], env=dict(os.environ))
        for seed in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    cache = Cache(folder, keep=1)
    cache.fetch(versions[0])
    assert copies(cache) == {versions[0].digest()}
