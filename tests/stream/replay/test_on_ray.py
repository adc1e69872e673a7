"""A cluster of this machine makes the same files as one process."""

from pathlib import Path

import pytest

from model.version.registry import Registry
from tests.stream.replay.test_replay import files_of, registry, replayed

__all__ = ["registry"]

pytest.importorskip("ray", reason="ray is not installed")


def test_a_cluster_writes_the_same_bytes_as_one_process(tmp_path: Path, registry: Registry) -> None:
    from stream.replay.on_ray import run_on_ray

    replayed(tmp_path / "here", registry)
    replayed(tmp_path / "ray", registry, runs=lambda tasks, heard: run_on_ray(tasks, "local", heard))
    assert files_of(tmp_path / "here") == files_of(tmp_path / "ray")
