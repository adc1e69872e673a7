"""Every version can be exported again: its network comes back from its weights and its configuration alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.errors import ManifestMismatch
from model.training.rebuilt import rebuilt
from model.version import artifact, golden, torchscript
from model.version import manifest as manifests
from model.version.manifest import CATALOGUE, GOLDEN, MANIFEST, PROGRAM, WEIGHTS
from model.version.registry import Registry
from tests.model import tiny
from tests.model.quick import run


def written(folder: Path, network: torch.nn.Module, manifest: manifests.Manifest) -> Path:
    """The files of a version but model.pt, which takes long to compile."""
    files = {
        WEIGHTS: artifact._weights_as_bytes(network.state_dict()),
        CATALOGUE: json.dumps(tiny.IDS).encode(),
        GOLDEN: golden.made(network),
    }
    whole = replace(
        manifest,
        version="1",
        catalogue_sha256=manifests.facts(files[CATALOGUE]).sha256,
        files={name: manifests.facts(data) for name, data in files.items()},
    )
    for name, data in {**files, MANIFEST: manifests.encode(whole)}.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("case", tiny.CASES, ids="-".join)
def test_every_kind_of_network_comes_back_without_its_program(tmp_path: Path, case: tuple[str, str]) -> None:
    config = tiny.config(*case)
    serving = tiny.serving(config=config)
    manifest = replace(tiny.manifest(serving, kind=config.kind), config={"network": config.table()})
    again = rebuilt(written(tmp_path, serving, manifest))
    assert artifact.weights_sha256(again) == manifest.weights_sha256
    golden.check(again, (tmp_path / GOLDEN).read_bytes())


@pytest.mark.parametrize("how", [{}, {"kind": "trunc"}], ids=str)
def test_what_was_trained_is_exported_again_and_answers_the_same(tmp_path: Path, how: dict[str, str]) -> None:
    version = run(tmp_path, max_epochs=1, **how)
    (version.folder / PROGRAM).unlink()
    before = torch.get_rng_state()
    network = rebuilt(version.uri, version.digest())
    assert torch.equal(torch.get_rng_state(), before)
    golden.check(torchscript.script(network), version.read(GOLDEN))
    registry, found = Registry(tmp_path / "again"), artifact.load_weights(version.uri)
    exported = registry.add(network, version.manifest(), found.item_ids, found.attributes)
    assert exported.read(CATALOGUE) == version.read(CATALOGUE)
    assert exported.manifest().memory_format == version.manifest().memory_format
    golden.check(artifact.load(exported.uri).program, version.read(GOLDEN))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "describes no network, so it cannot be rebuilt"),
        ({"network": {"kind": "later"}}, "describes no network of this build: kind is 'later'"),
        ({"network": tiny.table(d=32).table()}, "has other weights than weights.safetensors: size mismatch for"),
        ({"network": tiny.table(layers=2).table()}, r"has other weights than weights.safetensors: Unexpected key"),
    ],
)
def test_a_configuration_of_another_network_is_refused(tmp_path: Path, config: dict[str, object], message: str) -> None:
    serving = tiny.serving()
    with pytest.raises(ManifestMismatch, match=message):
        rebuilt(written(tmp_path, serving, replace(tiny.manifest(serving), config=config)))
