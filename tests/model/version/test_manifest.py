import dataclasses
from pathlib import Path

import pytest

from model.errors import ManifestUnknown
from model.version import manifest as manifests
from model.version.manifest import FileFacts, Forgotten, KeptFormat, Manifest, Metrics, Program, Training

FOLDER = Path(__file__).parent / "golden"
GOLDEN = FOLDER / "manifest-2.json"


def test_the_first_schema_is_refused_in_words() -> None:
    with pytest.raises(
        ManifestUnknown, match=r"old: manifest schema 1, this build reads 2\. An older rec2pm wrote it: train it again"
    ):
        manifests.decode((FOLDER / "manifest-1.json").read_bytes(), "old")


def test_the_second_schema_still_decodes() -> None:
    assert manifests.decode(GOLDEN.read_bytes(), "golden") == Manifest(
        schema=2,
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
        program=Program(kind="torchscript", torch_version="2.13.0+cpu"),
        catalogue_sha256="c" * 64,
        forgotten=Forgotten(users=2, until={"0": 1200, "1": 977}),
        kept_format=KeptFormat(of="movies@2", users=500, ndcg_at_10_own=0.101, ndcg_at_10_kept=0.098),
        files={
            "model.pt": FileFacts(bytes=912345, sha256="a" * 64),
            "weights.safetensors": FileFacts(bytes=801234, sha256="b" * 64),
            "catalogue.json": FileFacts(bytes=17010, sha256="c" * 64),
        },
    )


def test_what_is_encoded_is_decoded() -> None:
    manifest = manifests.decode(GOLDEN.read_bytes(), "golden")
    for one in (manifest, dataclasses.replace(manifest, training=None, metrics=None, forgotten=None, kept_format=None)):
        assert manifests.decode(manifests.encode(one), "memory") == one


def test_a_field_a_newer_build_added_is_ignored() -> None:
    data = GOLDEN.read_bytes().replace(b'"schema": 2,', b'"schema": 2, "colour": "red",')
    assert manifests.decode(data, "newer") == manifests.decode(GOLDEN.read_bytes(), "golden")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not json", "here: not a manifest"),
        (b"\xff\xfe", "here: not a manifest"),
        (b"{}", "here: not a manifest"),
        (b'{"schema": 3}', "schema 3, this build reads 2. A newer rec2pm may have written it"),
        (b'{"schema": 2, "name": "x"}', "malformed manifest of schema 2"),
        *(
            (GOLDEN.read_bytes().replace(f'"{field}":'.encode(), b'"other":'), f"missing required field `{field}`")
            for field in ("program", "catalogue_sha256", "files")
        ),
        *(
            (GOLDEN.read_bytes().replace(b'"model.pt"', name), "cannot be a file's name")
            for name in (b'"../model.pt"', b'"a/b"', b'".hidden"', b'""')
        ),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ManifestUnknown, match=message):
        manifests.decode(data, "here")
