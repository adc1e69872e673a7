import os
from pathlib import Path

import pytest

from stream.cpu_cores import usable_cores


def system(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A machine with this /proc/self/cgroup, and files below /sys/fs/cgroup."""
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": files[name] for name in files}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "cores", "count"),
    [
        ("0::/", {"cpu.max": "max 100000\n"}, 8, 8),
        ("0::/", {"cpu.max": "200000 100000\n"}, 8, 2),
        ("0::/", {"cpu.max": "250000 100000\n"}, 8, 2),
        ("0::/", {"cpu.max": "50000 100000\n"}, 8, 1),
        ("0::/", {"cpu.max": "900000 100000\n"}, 8, 8),
        ("0::/", {}, 3, 3),
        # The quota of a group above counts, too.
        ("0::/pods/a", {"pods/a/cpu.max": "max 100000\n", "pods/cpu.max": "300000 100000\n"}, 8, 3),
        ("0::/pods/a", {"pods/a/cpu.max": "100000 100000\n", "pods/cpu.max": "300000 100000\n"}, 8, 1),
        # Inside a container the group has a path that is not there.
        ("0::/docker/abc", {"cpu.max": "400000 100000\n"}, 8, 4),
        # cgroup v1, by either name of its folder.
        (
            "3:cpuset:/x\n2:cpu,cpuacct:/pods\n",
            {"cpu,cpuacct/pods/cpu.cfs_quota_us": "200000\n", "cpu,cpuacct/pods/cpu.cfs_period_us": "100000\n"},
            8,
            2,
        ),
        ("2:cpu:/a", {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 8, 3),
        ("2:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8, 8),
        ("2:cpuset:/", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 8, 8),
        ("", {"cpu.max": "100000 100000"}, 8, 8),
        ("0::/", {"cpu.max": "nonsense"}, 8, 8),
    ],
)
def test_the_smallest_quota_and_the_cores_of_the_process_limit_it(
    tmp_path: Path, groups: str, files: dict[str, str], cores: int, count: int
) -> None:
    assert usable_cores(system(tmp_path, groups, files), cores).count == count


def test_what_limits_it_is_said(tmp_path: Path) -> None:
    root = system(tmp_path, "0::/", {"cpu.max": "150000 100000"})
    assert usable_cores(root, 4).why == "the CPU quota is 1.5 of 4 cores"
    assert usable_cores(root, 1).why == "this process may run on 1 core"


def test_the_affinity_of_the_process_counts() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores().count == 1
    finally:
        os.sched_setaffinity(0, before)
