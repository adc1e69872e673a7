import hashlib
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fsspec.implementations.local import LocalFileSystem

from model.errors import DigestMismatch, ModelNotFound, VersionUnavailable
from model.version import artifact
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
    **{
        f"it has no {name}": lambda folder, name=name: (folder / name).unlink()
        for name in ("model.pt", "weights.safetensors", "catalogue.json", "manifest.json")
    },
    "model.pt has [0-9]+ bytes, manifest.json says [0-9]+": lambda folder: cut_short(folder / "model.pt"),
    "catalogue.json has [0-9]+ bytes, manifest.json says [0-9]+": lambda folder: cut_short(folder / "catalogue.json"),
    "manifest.json: not a manifest: .*": lambda folder: cut_short(folder / "manifest.json"),
    "manifest.json: not a manifest: Input data was truncated": lambda folder: (folder / "manifest.json").write_text(""),
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
        assert re.fullmatch(f"version passed over version=tiny@2 folder={folder}: {lack}", caplog.messages.pop())
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
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    tiny.add(tmp_path)
    monkeypatch.setattr(LocalFileSystem, "ls", refuse)
    with pytest.raises(VersionUnavailable, match=r"the registry cannot be read: .*Permission denied\. REC2PM_MODELS"):
        Registry(tmp_path).resolve(None)


def test_the_digest_of_a_version_stands_for_every_file(tmp_path: Path) -> None:
    version = tiny.add(tmp_path)
    manifest = version.folder / "manifest.json"
    assert version.digest() == hashlib.sha256(manifest.read_bytes()).hexdigest()
    there = {
        path.name: path.read_bytes() for path in version.folder.iterdir() if path.name not in {"claim", "manifest.json"}
    }
    assert {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in there.items()} == {
        name: (facts.bytes, facts.sha256) for name, facts in version.manifest().files.items()
    }
    assert version.manifest().catalogue_sha256 == hashlib.sha256(there["catalogue.json"]).hexdigest()
    assert version.manifest().program.torch_version == str(torch.__version__)


def test_nothing_of_another_version_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version, other = tiny.add(tmp_path), tiny.add(tmp_path, seed=1)
    digest = version.digest()
    pinned = Registry(tmp_path).resolve(f"tiny@1#{digest.upper()}")
    assert pinned.reference == "tiny@1"
    assert Runtime.load(pinned.folder, pinned.sha256).reference == "tiny@1"
    assert artifact.load_weights(pinned.uri, pinned.sha256).item_ids == tuple(tiny.IDS)
    shutil.copytree(other.folder, version.folder, dirs_exist_ok=True)
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("code of the file has run"))
    for load in (Runtime.load, artifact.load_weights):
        with pytest.raises(DigestMismatch, match=f"manifest.json has sha256 {other.digest()}, expected {digest}"):
            load(pinned.uri, pinned.sha256)


@pytest.mark.parametrize("name", ["model.pt", "weights.safetensors", "catalogue.json"])
def test_nothing_of_a_file_that_the_manifest_does_not_mean_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Of the same length, so that only the hash tells it."""
    version = tiny.add(tmp_path)
    path = version.folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert version.lacks() is None
    if name == "model.pt":
        monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("code of the file has run"))
    load = artifact.load_weights if name == "weights.safetensors" else Runtime.load
    with pytest.raises(DigestMismatch, match=f"{name} has sha256 {hashlib.sha256(data).hexdigest()}, expected"):
        load(version.uri)


def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="cannot be the name of a model"):
        tiny.add(tmp_path, "../outside")
