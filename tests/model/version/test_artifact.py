import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from model.errors import ArtifactUnreadable, ManifestMismatch, ManifestUnknown, VersionUnavailable
from model.version import artifact, torchscript
from model.version import manifest as manifests
from model.version.attributes import Attributes
from model.version.registry import ModelVersion, Registry
from tests.model import tiny

PROGRAM, MANIFEST = "model.pt", "manifest.json"


def files() -> dict[str, bytes]:
    """Those of tiny@1."""
    serving = tiny.serving()
    return artifact.files(serving, replace(tiny.manifest(serving), version="1"), tiny.IDS)


def written(folder: Path, made: dict[str, bytes], **changed: Any) -> Path:
    """A folder with these files, and a manifest that names them as they are, with other values of some fields."""
    manifest = replace(manifests.decode(made[MANIFEST], "made"), **changed)
    rest = {name: data for name, data in made.items() if name != MANIFEST}
    whole = replace(manifest, files={name: manifests.facts(data) for name, data in rest.items()})
    folder.mkdir(exist_ok=True)
    for name, data in {**rest, MANIFEST: manifests.encode(whole)}.items():
        (folder / name).write_bytes(data)
    return folder


def scripted(program: Any, inside: bytes | None) -> bytes:
    buffer = BytesIO()
    torch.jit.save(program, buffer, {} if inside is None else {MANIFEST: inside})
    return buffer.getvalue()


def test_what_is_saved_is_loaded(version: ModelVersion) -> None:
    loaded = artifact.load(version.uri)
    assert loaded.item_ids == tuple(tiny.IDS)
    assert loaded.manifest == version.manifest()
    assert loaded.manifest.version == "1"


def test_the_manifest_is_the_last_file_and_names_all_others() -> None:
    serving = tiny.serving()
    attributes = Attributes(("drama",), (0,) * 60)
    made = artifact.files(serving, replace(tiny.manifest(serving), version="1"), tiny.IDS, attributes)
    *others, last = made
    assert last == MANIFEST
    assert others == ["model.pt", "weights.safetensors", "catalogue.json", "golden.json", "attributes.json"]
    assert manifests.decode(made[last], "made").files == {name: manifests.facts(made[name]) for name in others}


def test_ids_keep_their_type(tmp_path: Path) -> None:
    serving = tiny.serving()
    ids = [1, "1", *range(100, 158)]
    assert artifact.load(Registry(tmp_path).add(serving, tiny.manifest(serving), ids).uri).item_ids == tuple(ids)


def test_the_hash_is_the_same_for_a_network_its_script_and_its_files(version: ModelVersion) -> None:
    serving = tiny.serving()
    sha256 = artifact.weights_sha256(serving)
    assert sha256 == artifact.weights_sha256(torchscript.script(serving)) == version.manifest().weights_sha256
    assert sha256 != artifact.weights_sha256(tiny.serving(seed=1))
    weights = artifact.load_weights(version.uri).weights
    assert weights.keys() == serving.state_dict().keys()
    for name, tensor in serving.state_dict().items():
        assert torch.equal(weights[name], tensor)


def test_weights_are_a_file_that_other_programs_read(version: ModelVersion) -> None:
    weights = safetensors.torch.load_file(version.folder / "weights.safetensors")
    assert torch.equal(weights["popularity"], tiny.popularity())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(VersionUnavailable, match=r"nowhere.manifest.json: no such file"):
        artifact.load(tmp_path / "nowhere")


NOT_A_PROGRAM = BytesIO()
with zipfile.ZipFile(NOT_A_PROGRAM, "w") as archive:
    archive.writestr("data.txt", "x")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 not really", NOT_A_PROGRAM.getvalue()])
def test_a_file_that_is_no_program_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ArtifactUnreadable, match=r"model\.pt is not a TorchScript artifact"):
        artifact.load(written(tmp_path / "1", files() | {PROGRAM: content}))


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 100])
def test_weights_that_are_none_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ArtifactUnreadable, match=r"weights\.safetensors is not a safetensors file"):
        artifact.load_weights(written(tmp_path / "1", files() | {"weights.safetensors": content}))


def test_torchscript_without_a_manifest_is_refused(tmp_path: Path) -> None:
    made = files() | {PROGRAM: scripted(torchscript.script(tiny.serving()), None)}
    with pytest.raises(ArtifactUnreadable, match=r"without manifest\.json inside"):
        artifact.load(written(tmp_path / "1", made))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"schema": 3}, "schema 3, this build reads 2"),
        ({"schema": 1}, "schema 1, this build reads 2. An older rec2pm wrote it: train it again"),
    ],
)
def test_an_unknown_schema_is_refused(tmp_path: Path, changed: dict[str, int], message: str) -> None:
    with pytest.raises(ManifestUnknown, match=message):
        artifact.load(written(tmp_path / "1", files(), **changed))


def test_a_program_of_another_kind_is_refused_before_it_is_read(tmp_path: Path) -> None:
    folder = written(tmp_path / "1", files(), program=manifests.Program(kind="export", torch_version="3.0"))
    (folder / PROGRAM).unlink()
    with pytest.raises(ArtifactUnreadable, match="its program is of kind 'export', this build runs torchscript"):
        artifact.load(folder)


def other_program(made: dict[str, bytes]) -> dict[str, bytes]:
    """The program of other weights, which says that it is of this version."""
    inside = manifests.encode(replace(manifests.decode(made[MANIFEST], "made"), files={}))
    return {PROGRAM: scripted(torchscript.script(tiny.serving(seed=1)), inside)}


def other_weights(_: dict[str, bytes]) -> dict[str, bytes]:
    weights = {name: tensor.clone() for name, tensor in tiny.serving(seed=1).state_dict().items()}
    return {"weights.safetensors": safetensors.torch.save(weights)}


@pytest.mark.parametrize(
    ("change", "load", "message"),
    [
        (other_program, artifact.load, r"the weights in model\.pt have weights_sha256 "),
        (other_weights, artifact.load_weights, r"the weights in weights\.safetensors have weights_sha256 "),
    ],
)
def test_other_weights_than_the_manifest_says_are_refused(
    tmp_path: Path, change: Callable[..., dict[str, bytes]], load: Callable[[Path], object], message: str
) -> None:
    made = files()
    with pytest.raises(ManifestMismatch, match=message):
        load(written(tmp_path / "1", made | change(made)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weights_sha256": "0" * 64}, r"differs from the manifest inside model\.pt"),
        ({"version": "2"}, r"differs from the manifest inside model\.pt"),
        ({"catalogue_sha256": "0" * 64}, "has another catalogue_sha256 than that of catalogue"),
        ({"n_items": 59}, r"the catalogue has 60 items, manifest\.json says 59"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestMismatch, match=message):
        artifact.load(written(tmp_path / "1", files(), **changed))


def test_a_program_that_says_something_else_than_the_manifest_is_refused(tmp_path: Path) -> None:
    serving = tiny.serving()
    made = artifact.files(serving, replace(tiny.manifest(serving), segment_length=13), tiny.IDS)
    with pytest.raises(ManifestMismatch, match=r"the program has segment_length 12, manifest\.json says 13"):
        artifact.load(written(tmp_path / "1", made))


@pytest.mark.parametrize("content", [b"{}", b"[1, 2", b"[null]", b"\xff"])
def test_a_catalogue_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    made = files() | {"catalogue.json": content}
    with pytest.raises(ArtifactUnreadable, match=r"catalogue\.json is not a list of item ids"):
        artifact.load(written(tmp_path / "1", made, catalogue_sha256=hashlib.sha256(content).hexdigest()))


def test_attributes_travel_with_the_items(tmp_path: Path, version: ModelVersion) -> None:
    serving, registry = tiny.serving(), Registry(tmp_path)
    attributes = Attributes(("drama", 7), tuple(row % 3 for row in range(60)))
    added = registry.add(serving, tiny.manifest(serving), tiny.IDS, attributes)
    assert artifact.load_weights(added.uri).attributes == attributes
    assert artifact.load(added.uri).item_ids == tuple(tiny.IDS)
    assert artifact.load_weights(version.uri).attributes is None
    added = registry.add(serving, tiny.manifest(serving), tiny.IDS, Attributes(("drama",), (1, 0)))
    with pytest.raises(ManifestMismatch, match=r"attributes\.json has 2 items, the catalogue has 60"):
        artifact.load_weights(added.uri)


def test_a_missing_method_is_named(tmp_path: Path) -> None:
    made = files()
    inside = manifests.encode(replace(manifests.decode(made[MANIFEST], "made"), files={}))
    made[PROGRAM] = scripted(torchscript.script(Silent(), ["spec"]), inside)
    with pytest.raises(ArtifactUnreadable, match="no method initial_memory, update"):
        artifact.load(written(tmp_path / "1", made))


class Silent(nn.Module):
    def spec(self) -> dict[str, int]:
        return {"abi": 1}

    def forward(self, x: Tensor) -> Tensor:
        return x
