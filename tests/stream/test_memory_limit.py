"""How much memory a container may have."""

from pathlib import Path

import pytest

from stream.memory_limit import memory_limit_bytes
from tests.stream.test_cpu_cores import system


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/", {"memory.max": "max\n"}, None),
        ("0::/", {"memory.max": "2147483648\n"}, 2147483648),
        ("0::/", {}, None),
        ("0::/pods/a", {"pods/a/memory.max": "max\n", "pods/memory.max": "500\n"}, 500),
        ("0::/pods/a", {"pods/a/memory.max": "300\n", "pods/memory.max": "500\n"}, 300),
        # Inside a container the group has a path that is not there.
        ("0::/docker/abc", {"memory.max": "400\n"}, 400),
        ("4:memory:/a", {"memory/a/memory.limit_in_bytes": "700\n"}, 700),
        ("4:memory:/", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("4:cpu:/", {"memory/memory.limit_in_bytes": "700\n"}, None),
        ("", {"memory.max": "700"}, None),
        ("0::/", {"memory.max": "nonsense"}, None),
    ],
)
def test_the_lowest_limit_counts(tmp_path: Path, groups: str, files: dict[str, str], limit: int | None) -> None:
    assert memory_limit_bytes(system(tmp_path, groups, files)) == limit
