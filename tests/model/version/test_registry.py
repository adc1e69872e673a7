import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from model.errors import ModelNotFound
from model.version import artifact
from model.version.artifact import ItemId
from model.version.manifest import Manifest
from model.version.registry import Registry
from tests.model import tiny


def test_versions_count_up_and_the_newest_is_meant(tmp_path: Path) -> None:
    for _ in range(2):
        tiny.add(tmp_path)
    (tmp_path / "tiny" / "10").mkdir()
    registry = Registry(tmp_path)
    assert [version.version for version in registry.versions("tiny")] == [1, 2, 10]
    assert registry.resolve("tiny").reference == registry.resolve(None).reference == "tiny@10"
    assert registry.resolve("tiny@2").manifest().version == "2"
    assert tiny.add(tmp_path).reference == "tiny@11"


def test_with_several_names_one_has_to_be_given(tmp_path: Path) -> None:
    tiny.add(tmp_path, "a")
    tiny.add(tmp_path, "b")
    with pytest.raises(ModelNotFound, match="has several models, name one of a, b"):
        Registry(tmp_path).resolve(None)
    assert Registry(tmp_path).resolve("b").reference == "b@1"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("other", "has no model 'other': it has tiny"),
        ("tiny@7", "has no version '7' of tiny: it has 1"),
        ("tiny@01", "no version '01'"),
        ("../tiny", "'../tiny' is not NAME or NAME@VERSION of the registry .*: it has tiny"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(tmp_path: Path, reference: str, message: str) -> None:
    tiny.add(tmp_path)
    with pytest.raises(ModelNotFound, match=message):
        Registry(tmp_path).resolve(reference)


def test_an_empty_registry_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="it is empty"):
        Registry(tmp_path / "none").resolve(None)


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
    save, together = artifact.save, threading.Barrier(2)

    def save_together(
        network: torch.nn.Module, manifest: Manifest, item_ids: list[ItemId], path: Path, *more: Any
    ) -> None:
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
