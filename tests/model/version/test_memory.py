"""How much memory there is, from files as Linux writes them."""

import mmap
from pathlib import Path

import pytest

from model.version import memory

MB = 1 << 20
V1 = "31 23 0:28 {root} {at} rw,relatime - cgroup cgroup rw,{controller}\n"
V2 = "41 31 0:38 {root} {at} rw,relatime shared:9 - cgroup2 cgroup2 rw\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable: 2048000 kB\n")
    return tmp_path / "proc"


def limited(folder: Path, limit: str, use: int, cached: int, version: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{use}\n")
    line = "inactive_file" if version == 2 else "total_inactive_file"
    (folder / "memory.stat").write_text(f"cache 1\n{line} {cached}\n")


def test_without_a_control_group_it_is_what_the_machine_has(proc: Path) -> None:
    assert memory.free_bytes(proc) == 2_000 * MB


def test_without_linux_it_is_unknown(tmp_path: Path) -> None:
    assert memory.free_bytes(tmp_path) is None
    assert memory.rss_bytes(1, tmp_path) is None


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_group_counts_less_what_is_used_and_cannot_be_given_up(proc: Path, version: int) -> None:
    at = proc.parent / "sys"
    (proc / "self" / "cgroup").write_text("0::/a/b\n" if version == 2 else "8:pids:/x\n4:cpu,memory:/a/b\n0::/\n")
    mount = V2.format(root="/", at=at) if version == 2 else V1.format(root="/", at=at, controller="memory,cpu")
    (proc / "self" / "mountinfo").write_text(V1.format(root="/", at=at / "wrong", controller="pids") + mount)
    limited(at / "a" / "b", "max" if version == 2 else str((1 << 63) - 4096), 5 * MB, 0, version)
    assert memory.free_bytes(proc) == 2_000 * MB
    limited(at / "a" / "b", str(500 * MB), 300 * MB, 100 * MB, version)
    assert memory.free_bytes(proc) == 300 * MB
    limited(at / "a", str(400 * MB), 300 * MB, 0, version)
    assert memory.free_bytes(proc) == 100 * MB
    limited(at / "a", str(400 * MB), 500 * MB, 0, version)
    assert memory.free_bytes(proc) == 0


def test_in_a_container_the_group_is_what_is_mounted(proc: Path) -> None:
    """Its path is the host's, or begins with what is mounted."""
    at = proc.parent / "sys"
    (proc / "self" / "cgroup").write_text("0::/kubepods/pod1/c1\n")
    for root in ("/kubepods/pod1/c1", "/kubepods/pod1", "/somewhere/else"):
        (proc / "self" / "mountinfo").write_text(V2.format(root=root, at=at))
        limited(at, str(50 * MB), 20 * MB, 0, 2)
        assert memory.free_bytes(proc) == 30 * MB


def test_a_process_takes_what_it_has_in_memory() -> None:
    before = memory.rss_bytes()
    if before is None:
        pytest.skip("no /proc")
    with mmap.mmap(-1, 64 * MB) as held:  # of its own: the allocator may have as much left from something else
        held.write(b"x" * len(held))
        after = memory.rss_bytes("self")
    assert after is not None
    assert after - before > 0.9 * 64 * MB
