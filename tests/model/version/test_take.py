"""A version from elsewhere is copied into a registry under its own name and number."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from model.errors import DigestMismatch, ModelError, VersionTaken
from model.version import storage
from model.version.manifest import MANIFEST
from model.version.registry import CLAIM, ModelVersion, Registry
from tests.model import tiny


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    root = tmp_path_factory.mktemp("elsewhere")
    tiny.add(root)
    return tiny.add(root, seed=1)


@pytest.fixture(params=["a folder", "a bucket"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    return Registry(tmp_path / "models" if request.param == "a folder" else f"memory://{tmp_path.name}/models")


def test_it_keeps_its_name_number_and_sha256(registry: Registry, elsewhere: ModelVersion) -> None:
    taken = registry.take(elsewhere)
    assert registry.resolve("tiny") == ModelVersion("tiny", 2, taken.uri)
    assert (taken.reference, taken.digest()) == ("tiny@2", elsewhere.digest())
    assert taken.files().manifest == elsewhere.manifest()
    taken.files().check()


def test_to_take_it_again_changes_nothing(registry: Registry, elsewhere: ModelVersion) -> None:
    assert registry.take(elsewhere) == registry.take(elsewhere)


def test_another_version_of_the_same_name_and_number_is_not_replaced(
    registry: Registry, elsewhere: ModelVersion, tmp_path: Path
) -> None:
    other = [tiny.add(tmp_path / "other", seed=seed) for seed in (2, 3)][-1]
    registry.take(other)
    with pytest.raises(VersionTaken, match=f"has another tiny@2, with sha256 {other.digest()}"):
        registry.take(elsewhere)
    assert registry.resolve("tiny@2").digest() == other.digest()


@pytest.mark.parametrize("written", [0, 1, 3])
def test_an_interrupted_copy_is_no_version_and_is_continued(
    registry: Registry, elsewhere: ModelVersion, written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = storage.write, written

    def killed(uri: str, data: bytes) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        write(uri, data)

    monkeypatch.setattr(storage, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        registry.take(elsewhere)
    monkeypatch.undo()
    assert registry.versions("tiny") == []
    assert registry.take(elsewhere).digest() == elsewhere.digest()
    assert len(registry.versions("tiny")) == 1


def test_a_number_that_a_trainer_has_claimed_is_not_taken(registry: Registry, elsewhere: ModelVersion) -> None:
    storage.create(storage.join(registry.uri, "tiny", "2", CLAIM), b"a trainer")
    with pytest.raises(VersionTaken, match="somebody else has begun to write that version"):
        registry.take(elsewhere)


def test_a_copy_whose_files_are_not_right_does_not_exist(registry: Registry, tmp_path: Path) -> None:
    damaged = tiny.add(tmp_path / "damaged")
    (Path(damaged.uri) / "model.pt").write_bytes(b"not it")
    with pytest.raises(DigestMismatch):
        registry.take(damaged)
    with pytest.raises(ModelError):
        registry.resolve("tiny@1")
    with pytest.raises(FileNotFoundError):
        storage.read(storage.join(registry.uri, "tiny", "1", MANIFEST))
