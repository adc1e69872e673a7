"""How much memory there is for this process, and how much a process takes. Linux says both; elsewhere nothing does.

A container's limit is that of a control group: of its own one or of one above it, in version 1 or 2.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_NAMES: Final = {
    "cgroup2": ("memory.max", "memory.current", "inactive_file"),
    "cgroup": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""By the type of the mount: the files with the limit and the use, and the line of memory.stat with the cached file
pages that the kernel gives up before it kills.
"""


def free_bytes(proc: Path = Path("/proc")) -> int | None:
    """The bytes that this process can still take before its control group or the machine is full; None: unknown."""
    found = [_available(proc), *(_left(folder, kind) for kind, folder in _groups(proc))]
    known = [each for each in found if each is not None]
    return max(0, min(known)) if known else None


def rss_bytes(pid: int | str = "self", proc: Path = Path("/proc")) -> int | None:
    """The bytes of a process that are in memory; None: unknown, or there is no such process."""
    return _kilobytes(proc / str(pid) / "status", "VmRSS:")


def _available(proc: Path) -> int | None:
    return _kilobytes(proc / "meminfo", "MemAvailable:")


def _kilobytes(path: Path, name: str) -> int | None:
    for line in _lines(path):
        if line.startswith(name):
            return int(line.split()[1]) << 10
    return None


def _left(folder: Path, kind: str) -> int | None:
    """What a control group has left; None: it has no limit."""
    limit_name, use_name, cached_name = _NAMES[kind]
    limit, use = _number(folder / limit_name), _number(folder / use_name)
    if limit is None or use is None:
        return None
    cached = next(
        (int(line.split()[1]) for line in _lines(folder / "memory.stat") if line.split()[0] == cached_name), 0
    )
    return limit - use + cached


def _groups(proc: Path) -> Iterator[tuple[str, Path]]:
    """The control groups of this process that count memory, and those above them, as far as they are mounted here."""
    paths: dict[str, str] = {}
    for line in _lines(proc / "self" / "cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            paths["cgroup2"] = path
        elif "memory" in controllers.split(","):
            paths["cgroup"] = path
    for line in _lines(proc / "self" / "mountinfo"):
        # 36 35 98:0 /root /mounted/at options … - type source options
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind not in paths or (kind == "cgroup" and "memory" not in options.split(",")):
            continue
        _, _, _, root, mounted = before.split(" ")[:5]
        own = PurePosixPath(paths[kind])
        # In a container the path may be the host's. Its own group is then what is mounted.
        inside = own.relative_to(root) if own.is_relative_to(root) else PurePosixPath()
        for each in (inside, *inside.parents):
            yield kind, Path(mounted) / each


def _number(path: Path) -> int | None:
    """The number in a file; None: there is no such file, or it says "max"."""
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
