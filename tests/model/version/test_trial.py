"""A version is tried in a process of its own, whatever it does there."""

from pathlib import Path

import pytest

from model.version.registry import ModelVersion
from model.version.trial import Trial, tried

LONG_S = 120.0


@pytest.fixture
def folder(version: ModelVersion) -> Path:
    assert version.folder is not None
    return version.folder


def test_a_good_version_passes_with_its_figures(folder: Path) -> None:
    found = tried(folder, timeout_s=LONG_S)
    assert found.why is None
    figures = (found.load_s, found.warm_up_s, found.p50_ms, found.p95_ms)
    assert all(figure is not None and figure > 0 for figure in figures)
    assert found.p50_ms is not None
    assert found.p95_ms is not None
    assert found.p50_ms <= found.p95_ms
    assert found.rss_bytes is not None
    assert found.rss_bytes > 1 << 20


def test_its_sha256_is_compared(folder: Path) -> None:
    assert "has sha256" in str(tried(folder, "0" * 64, timeout_s=LONG_S).why)


def test_it_is_ended_at_the_limit_of_time(folder: Path) -> None:
    assert tried(folder, timeout_s=0.001) == Trial("it did not end within 0.001 s: it was loading")


def test_without_memory_for_it_nothing_is_started(folder: Path) -> None:
    why = tried(folder, timeout_s=LONG_S, memory_bytes=1 << 20).why
    assert why == (
        "it is too large for the memory there is: model.pt has 1 MB, a load needs about 321 MB, 1 MB are allowed"
    )
