"""How many cores this process may use: the affinity of the process, and the CPU quota of its container.

Torch knows neither the quota nor who set it. With a thread for each core of the machine, a container of two cores on a
machine of 64 is throttled most of the time.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stream.cgroups import groups

_CONTROLLERS: Final = ("cpu,cpuacct", "cpu")
"""The folders that cgroup v1 has for the CPU."""


@dataclass(frozen=True, slots=True)
class Cores:
    """`count` cores can be used by threads. `why` says in words what limits them."""

    count: int
    why: str


def usable_cores(root: Path = Path("/"), cores: int | None = None) -> Cores:
    """The cores of this process: at least one, and no more whole ones than the quota allows.

    Args:
        root: the folder that has `proc` and `sys`.
        cores: those that the system lets this process run on; None: ask it.
    """
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = min(_quotas(root), default=None)
    if quota is not None and quota < cores:
        return Cores(max(1, int(quota)), f"the CPU quota is {quota:g} of {cores} cores")
    return Cores(cores, f"this process may run on {cores} core{'' if cores == 1 else 's'}")


def let_threads_sleep() -> None:
    """Let torch's threads sleep while they wait for one another. Call this before torch is imported.

    By default they spin. On a machine that is busy with something else, a thread then spins while the one that it waits
    for has no core, and a training with two threads stands almost still.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read by OpenMP when it is loaded


def _quotas(root: Path) -> Iterator[float]:
    """The quotas of this process's group and of the groups above it, in cores."""
    for group in groups(root, "cpu", _CONTROLLERS):
        if group.version == 2:
            yield from _cores(*group.text("cpu.max").split())
        else:
            quota, period = (group.text(f"cpu.cfs_{what}_us").strip() for what in ("quota", "period"))
            yield from _cores(quota, period)


def _cores(quota: str = "", period: str = "") -> Iterator[float]:
    if quota.isdigit() and period.isdigit() and int(quota) > 0 and int(period) > 0:  # `max` and -1: no quota
        yield int(quota) / int(period)
