"""What only the composition root knows."""

import platform
from pathlib import Path

import pytest

from stream.compose import _keep_memory_together


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc keeps memory that it must be told to give back"
)
def test_memory_that_is_free_is_given_back_to_the_system() -> None:
    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    # Small pieces, every hundredth of which stays: what lies between them is free, and the allocator keeps it.
    pieces = [bytes(1000) for _ in range(200_000)]
    kept = pieces[::100]
    del pieces
    before = resident_mb()
    _keep_memory_together()()
    assert resident_mb() < before - 50
    assert len(kept) == 2000
