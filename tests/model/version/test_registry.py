import hashlib
import logging
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model.errors import DigestMismatch, ModelNotFound
from model.version import artifact
from model.version.artifact import ItemId
from model.version.manifest import Manifest
from model.version.registry import Registry
from model.version.runtime import Runtime
from tests.model import tiny


def test_versions_count_up_and_the_newest_is_meant(tmp_path: Path) -> None:
    for _ in range(2):
        tiny.add(tmp_path)
    shutil.copytree(tmp_path / "tiny" / "2", tmp_path / "tiny" / "10")
    registry = Registry(tmp_path)
    assert [version.version for version in registry.versions("tiny")] == [1, 2, 10]
    assert registry.resolve("tiny").reference == registry.resolve(None).reference == "tiny@10"
    assert registry.resolve("tiny@2").manifest().version == "2"
    assert tiny.add(tmp_path).reference == "tiny@11"


def test_with_several_names_one_has_to_be_given(tmp_path: Path) -> None:
    tiny.add(tmp_path, "a")
    tiny.add(tmp_path, "b")
    with pytest.raises(ModelNotFound, match=r"has several models: a, b. Set REC2PM_MODEL to one of them"):
        Registry(tmp_path).resolve(None)
    assert Registry(tmp_path).resolve("b").reference == "b@1"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("other", "has no model 'other': it has tiny"),
        ("tiny@7", "has no version '7' of tiny: it has 1"),
        ("tiny@01", "no version '01'"),
        *(
            (wrong, f"'{re.escape(wrong)}' is not NAME, NAME@VERSION or NAME@VERSION#SHA256 .*: it has tiny")
            for wrong in ("../tiny", "tiny@1#", "tiny@1#12ab", "tiny#" + "0" * 64, "tiny@1#" + "g" * 64, "@1", "")
        ),
    ],
)
def test_what_is_not_there_is_said_with_what_is(tmp_path: Path, reference: str, message: str) -> None:
    tiny.add(tmp_path)
    with pytest.raises(ModelNotFound, match=message):
        Registry(tmp_path).resolve(reference)


@pytest.mark.parametrize("reference", [None, "tiny", "tiny@1"])
def test_a_registry_without_a_model_says_whether_it_is_there(tmp_path: Path, reference: str | None) -> None:
    with pytest.raises(ModelNotFound, match=r"there is no such folder. `rec2pm train LOG --out .*none` makes it"):
        Registry(tmp_path / "none").resolve(reference)
    with pytest.raises(ModelNotFound, match=r"it is an empty registry. `rec2pm train LOG --out .*` writes a model"):
        Registry(tmp_path).resolve(reference)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "it has no model.pt": lambda folder: (folder / "model.pt").unlink(),
    "it has no manifest.json": lambda folder: (folder / "manifest.json").unlink(),
    "model.pt is cut short, or not a model": lambda folder: cut_short(folder / "model.pt"),
    "manifest.json is cut short, or not JSON": lambda folder: cut_short(folder / "manifest.json"),
}


@pytest.mark.parametrize("lack", DAMAGES)
def test_a_version_that_is_not_whole_is_not_chosen_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lack: str
) -> None:
    for _ in range(2):
        tiny.add(tmp_path)
    registry, folder = Registry(tmp_path), tmp_path / "tiny" / "2"
    DAMAGES[lack](folder)
    caplog.set_level(logging.INFO)
    for reference in ("tiny", None):
        assert registry.resolve(reference).reference == "tiny@1"
        assert caplog.messages.pop() == f"version passed over version=tiny@2 folder={folder}: {lack}"
        caplog.clear()
    with pytest.raises(ModelNotFound, match=f"{folder} is not a whole version: {lack}"):
        registry.resolve("tiny@2")
    assert tiny.add(tmp_path).reference == "tiny@3", "its number is taken"
    assert registry.resolve(None).reference == "tiny@3"
    assert caplog.messages == [], "an old one is nobody's concern"
    for number in ("1", "3"):
        shutil.rmtree(tmp_path / "tiny" / number)
    with pytest.raises(ModelNotFound, match=f"it has no whole version .{folder}: {lack}"):
        registry.resolve(None)


def test_a_registry_that_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    tiny.add(tmp_path)
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ModelNotFound, match=r"cannot be read: .*Permission denied"):
        Registry(tmp_path).resolve(None)


def test_nothing_of_a_file_with_another_digest_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = tiny.add(tmp_path)
    digest = hashlib.sha256(version.program.read_bytes()).hexdigest()
    assert version.digest() == digest
    pinned = Registry(tmp_path).resolve(f"tiny@1#{digest.upper()}")
    assert pinned.reference == "tiny@1"
    assert Runtime.load(pinned.folder, pinned.sha256).reference == "tiny@1"
    assert artifact.load_weights(pinned.program, pinned.sha256).item_ids == tuple(tiny.IDS)
    other = tiny.add(tmp_path, seed=1)
    shutil.copy(other.program, version.program)
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("code of the file has run"))
    loads: tuple[Callable[[], object], ...] = (
        lambda: Runtime.load(pinned.folder, pinned.sha256),
        lambda: artifact.load_weights(pinned.program, pinned.sha256),
    )
    for load in loads:
        with pytest.raises(DigestMismatch, match=f"model.pt has sha256 {other.digest()}, expected {digest}"):
            load()


def test_a_version_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment the program has been written and the manifest has not, no reader sees either; nor after a
    failure.
    """
    registry = Registry(tmp_path)
    save = artifact.save

    def fail_after_save(
        network: torch.nn.Module, manifest: Manifest, item_ids: list[ItemId], path: Path, *more: Any
    ) -> None:
        save(network, manifest, item_ids, path, *more)
        assert path.is_file()
        assert registry.names() == []
        raise RuntimeError("disk full")

    monkeypatch.setattr(artifact, "save", fail_after_save)
    with pytest.raises(RuntimeError, match="disk full"):
        tiny.add(tmp_path)
    assert registry.names() == []
    assert list((tmp_path / "tiny").iterdir()) == []


def test_two_trainers_at_once_get_a_version_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both choose number 1, since neither has renamed when the other looks; the later one moves on to 2."""
    save, together, compiling = artifact.save, threading.Barrier(2), threading.Lock()

    def save_together(
        network: torch.nn.Module, manifest: Manifest, item_ids: list[ItemId], path: Path, *more: Any
    ) -> None:
        with compiling:  # trainers are processes: torch.jit cannot compile one class in two threads at once
            save(network, manifest, item_ids, path, *more)
        if manifest.version == "1":
            together.wait(timeout=60)

    monkeypatch.setattr(artifact, "save", save_together)
    serving = tiny.serving()
    manifest = tiny.manifest(serving)
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(Registry(tmp_path).add(serving, manifest, tiny.IDS).reference))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["tiny@1", "tiny@2"]
    assert [version.manifest().version for version in Registry(tmp_path).versions("tiny")] == ["1", "2"]


def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="cannot be the name of a model"):
        tiny.add(tmp_path, "../outside")
