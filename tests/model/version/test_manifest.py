import dataclasses
from pathlib import Path

import pytest

from model.errors import ManifestUnknown
from model.version import manifest as manifests
from model.version.manifest import Manifest, Metrics, Training

GOLDEN = Path(__file__).parent / "golden" / "manifest-1.json"


def test_the_first_schema_still_decodes() -> None:
    assert manifests.decode(GOLDEN.read_bytes(), "golden") == Manifest(
        schema=1,
        name="movies",
        version="3",
        kind="rec2pm-o",
        memory_format="rec2pm-o/4x64/1f3a5c7e9b0d",
        segment_length=50,
        state_floats=256,
        n_items=3416,
        config={"network": {"d": 64, "layers": 2}, "options": {"lr": 0.001, "max_seconds": None}},
        training=Training(
            log="ml1m.parquet",
            rows=900188,
            users=5949,
            items=3416,
            from_ms=956703932000,
            until_ms=996585022000,
            split="by time: the first 100% of the log, its last 10% for validation",
            seed=0,
            epochs=12,
            best_epoch=11,
            wall_s=301.5,
            samples=82110,
        ),
        metrics=Metrics(targets=2000, hr_at_10=0.2, ndcg_at_10=0.1, popularity_hr_at_10=0.04),
        weights_sha256="1f3a5c7e9b0d" + "0" * 52,
        program_version="0.1.0",
        torch_version="2.13.0+cpu",
    )


def test_what_is_encoded_is_decoded() -> None:
    manifest = manifests.decode(GOLDEN.read_bytes(), "golden")
    for one in (manifest, dataclasses.replace(manifest, training=None, metrics=None)):
        assert manifests.decode(manifests.encode(one), "memory") == one


def test_a_field_a_newer_build_added_is_ignored() -> None:
    data = GOLDEN.read_bytes().replace(b'"schema": 1,', b'"schema": 1, "colour": "red",')
    assert manifests.decode(data, "newer") == manifests.decode(GOLDEN.read_bytes(), "golden")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not json", "here: not a manifest"),
        (b"\xff\xfe", "here: not a manifest"),
        (b"{}", "here: not a manifest"),
        (b'{"schema": 2}', "schema 2, this build reads 1"),
        (b'{"schema": 1, "name": "x"}', "malformed manifest of schema 1"),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ManifestUnknown, match=message):
        manifests.decode(data, "here")
