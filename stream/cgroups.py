"""Where the system says what the container of this process may use, for cgroup v1 and v2."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple


class Group(NamedTuple):
    """A control group."""

    folder: Path
    version: Literal[1, 2]

    def text(self, name: str) -> str:
        """What a file of the group says; empty if it is not there."""
        return _text(self.folder / name)


def groups(root: Path, controller: str, mounts: Sequence[str]) -> Iterator[Group]:
    """The group of this process and those above it. A limit may be said in any of them.

    Args:
        root: the folder that has `proc` and `sys`.
        controller: `cpu` or `memory`.
        mounts: the folders that cgroup v1 has for it.
    """
    system = root / "sys" / "fs" / "cgroup"
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            for folder in _upwards(system, path):
                yield Group(folder, 2)
        elif controller in controllers.split(","):
            for mount in mounts:
                for folder in _upwards(system / mount, path):
                    yield Group(folder, 1)


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """The folder of a group and of those above it. In a container the mount may be the group itself."""
    path = PurePosixPath("/" + group.lstrip("/"))
    for each in (path, *path.parents):
        yield mount / str(each).lstrip("/")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
