"""`rec2pm train` and `rec2pm evaluate` with a registry in a bucket."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from model.version import storage
from model.version.registry import Registry
from stream.commands.main import main
from tests.buckets import bucket, s3
from tests.model.quick import LOG, SMALL

__all__ = ["bucket", "s3"]


def rec2pm(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def small(*settings: str) -> list[str]:
    return [word for setting in (*SMALL, *settings) for word in ("--set", setting)]


def test_a_version_is_trained_compared_and_started_from_in_a_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: str
) -> None:
    monkeypatch.chdir(tmp_path)
    LOG.write_csv("log.csv")
    trained = rec2pm("train", "log.csv", "--out", bucket, "--name", "shop", *small("max_epochs=1"))
    assert (trained.exit_code, trained.stdout) == (0, "shop@1\n"), trained.output
    assert f"wrote {bucket}/shop/1\n" in trained.stderr
    setting = re.search(r"REC2PM_MODEL=(shop@1#[0-9a-f]{64})$", trained.stderr, re.MULTILINE)
    assert setting
    assert Registry(bucket).resolve(setting[1]).reference == "shop@1"
    again = rec2pm("train", "log.csv", "--out", bucket, "--name", "shop", "--from", setting[1], "--set", "max_epochs=1")
    assert (again.exit_code, again.stdout) == (0, "shop@2\n"), again.output
    compared = rec2pm("evaluate", "log.csv", "--registry", bucket, "--model", "shop@1", "--model", "shop@2")
    assert compared.exit_code == 0, compared.output
    # Training left what belongs on a disk there, and nothing but the versions in the bucket.
    assert sorted(entry.name for entry in storage.entries(bucket)) == ["shop"]
    (kept,) = (tmp_path / "var" / "training").iterdir()
    assert kept.name == bucket.replace("://", "-").replace("/", "-")
    assert sorted(path.name for path in (kept / ".tensorboard" / "shop").iterdir()) == ["1", "2"]
    assert not (kept / ".training").exists()


def test_a_bucket_that_does_not_answer_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    LOG.write_csv("log.csv")
    for words in (
        ("train", "log.csv", "--out", "s3://nobody/models", *small("max_epochs=1")),
        ("evaluate", "log.csv", "--registry", "s3://nobody/models", "--model", "shop"),
    ):
        ended = rec2pm(*words)
        assert ended.exit_code == 1
        (line,) = [line for line in ended.stderr.splitlines() if line.startswith("rec2pm: ")]
        assert "s3://nobody/models" in line
        assert "the registry cannot be read: Could not connect to the endpoint URL" in line
        assert "epoch" not in ended.stderr
