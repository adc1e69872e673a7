import dataclasses
import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.errors import ArtifactUnreadable, ManifestMismatch, ManifestUnknown
from model.version import artifact
from model.version import manifest as manifests
from model.version.attributes import Attributes
from model.version.registry import ModelVersion
from tests.model import tiny


@pytest.fixture
def copy(version: ModelVersion, tmp_path: Path) -> Path:
    """A version's folder to damage."""
    shutil.copytree(version.folder, tmp_path / "1")
    return tmp_path / "1" / artifact.PROGRAM


def test_what_is_saved_is_loaded(version: ModelVersion) -> None:
    loaded = artifact.load(version.program)
    assert loaded.item_ids == tuple(tiny.IDS)
    assert loaded.manifest == version.manifest()
    assert loaded.manifest.version == "1"


def test_ids_keep_their_type(tmp_path: Path) -> None:
    serving = tiny.serving()
    ids = [1, "1", *range(100, 158)]
    artifact.save(serving, tiny.manifest(serving), ids, tmp_path / artifact.PROGRAM)
    assert artifact.load(tmp_path / artifact.PROGRAM).item_ids == tuple(ids)


def test_the_hash_is_the_same_for_a_network_its_script_and_its_file() -> None:
    serving = tiny.serving()
    assert artifact.weights_sha256(serving) == artifact.weights_sha256(artifact.script(serving))
    assert artifact.weights_sha256(serving) != artifact.weights_sha256(tiny.serving(seed=1))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactUnreadable, match=r"nowhere.*no such file"):
        artifact.load(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 not really"])
def test_a_file_that_is_no_artifact_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ArtifactUnreadable, match="not a TorchScript artifact"):
        artifact.load(tmp_path / "model.pt")


def test_a_zip_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("data.txt", "x")
    with pytest.raises(ArtifactUnreadable, match="not a TorchScript artifact"):
        artifact.load(tmp_path / "model.pt")


def test_torchscript_without_a_manifest_is_refused(tmp_path: Path) -> None:
    torch.jit.save(artifact.script(tiny.serving()), str(tmp_path / "model.pt"))
    with pytest.raises(ArtifactUnreadable, match=r"without manifest\.json"):
        artifact.load(tmp_path / "model.pt")


def test_an_unknown_schema_is_refused(tmp_path: Path) -> None:
    serving = tiny.serving()
    artifact.save(serving, dataclasses.replace(tiny.manifest(serving), schema=2), tiny.IDS, tmp_path / "model.pt")
    with pytest.raises(ManifestUnknown, match="schema 2, this build reads 1"):
        artifact.load(tmp_path / "model.pt")


def test_other_weights_than_the_manifest_says_are_refused(tmp_path: Path) -> None:
    serving = tiny.serving()
    artifact.save(tiny.serving(seed=1), tiny.manifest(serving), tiny.IDS, tmp_path / "model.pt")
    with pytest.raises(ManifestMismatch, match="weights have sha256"):
        artifact.load(tmp_path / "model.pt")


def test_a_manifest_beside_it_that_says_something_else_is_refused(copy: Path) -> None:
    beside = copy.with_name("manifest.json")
    beside.write_text(json.dumps(json.loads(beside.read_text()) | {"weights_sha256": "0" * 64}))
    with pytest.raises(ManifestMismatch, match="differs from the manifest inside"):
        artifact.load(copy)


def test_an_artifact_without_a_manifest_beside_it_is_enough(copy: Path) -> None:
    copy.with_name("manifest.json").unlink()
    assert artifact.load(copy).manifest.name == "tiny"


def test_a_catalogue_of_another_size_is_refused(tmp_path: Path) -> None:
    serving = tiny.serving()
    artifact.save(serving, tiny.manifest(serving), tiny.IDS[:-1], tmp_path / "model.pt")
    with pytest.raises(ManifestMismatch, match="catalogue has 59 items"):
        artifact.load(tmp_path / "model.pt")


def test_attributes_travel_with_the_items(tmp_path: Path, version: ModelVersion) -> None:
    serving, path = tiny.serving(), tmp_path / "model.pt"
    attributes = Attributes(("drama", 7), tuple(row % 3 for row in range(60)))
    artifact.save(serving, tiny.manifest(serving), tiny.IDS, path, attributes)
    assert artifact.load_weights(path).attributes == attributes
    assert artifact.load(path).item_ids == tuple(tiny.IDS)
    assert artifact.load_weights(version.program).attributes is None
    artifact.save(serving, tiny.manifest(serving), tiny.IDS, path, Attributes(("drama",), (1, 0)))
    with pytest.raises(ManifestMismatch, match=r"attributes\.json inside has 2 items, the catalogue has 60"):
        artifact.load(path)


def test_a_missing_method_is_named(tmp_path: Path) -> None:
    program = artifact.script(Silent(), ["spec"])
    serving = tiny.serving()
    extra = {"manifest.json": manifests.encode(tiny.manifest(serving)), "catalogue.json": b"[]"}
    torch.jit.save(program, str(tmp_path / "model.pt"), _extra_files=extra)
    with pytest.raises(ArtifactUnreadable, match="no method initial_memory, update"):
        artifact.load(tmp_path / "model.pt")


class Silent(nn.Module):
    def spec(self) -> dict[str, int]:
        return {"abi": 1}

    def forward(self, x: Tensor) -> Tensor:
        return x
