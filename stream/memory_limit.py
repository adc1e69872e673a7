"""How much memory the container of this process may have: the system ends a process that needs more."""

from pathlib import Path
from typing import Final

from stream.cgroups import groups

_NO_LIMIT: Final = 1 << 60
"""cgroup v1 says that there is none with a number above this, v2 with `max`."""


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """The lowest limit of this process's group and of those above it; None if there is none.

    Args:
        root: the folder that has `proc` and `sys`.
    """
    said = (
        group.text("memory.max" if group.version == 2 else "memory.limit_in_bytes").strip()
        for group in groups(root, "memory", ("memory",))
    )
    return min((int(text) for text in said if text.isdigit() and int(text) < _NO_LIMIT), default=None)
