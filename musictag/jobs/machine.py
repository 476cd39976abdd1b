"""Count the CPU cores and the memory that this process may use; affinity and cgroups limit them."""

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# Memory that the system and the driver of a job need beside its workers.
_RESERVED_BYTES = 1 << 30


def n_cores() -> int:
    """Return the number of CPU cores that this process may use: the least of affinity and CPU quotas, at least 1.

    A quota of half a core counts as one, of one and a half as two.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [*_quotas_v1(), *_quotas_v2()]
    return max(1, min(available, *(math.ceil(quota) for quota in quotas))) if quotas else available


def memory_bytes() -> int:
    """Return the memory that this process may use: the least of the machine's and of the limits of its cgroups."""
    limits = [
        int(text)
        for controller, name in (("memory", "memory.limit_in_bytes"), ("", "memory.max"))
        for text in _read(controller, name)
        if text.isdecimal()
    ]
    return min([int(psutil.virtual_memory().total), *limits])


def n_workers(worker_bytes: int) -> int:
    """Return how many worker processes this machine has cores and memory for, at least 1.

    Args:
        worker_bytes: memory of one worker.

    """
    return max(1, min(n_cores(), (memory_bytes() - _RESERVED_BYTES) // worker_bytes))


def _quotas_v1() -> Iterator[float]:
    """Yield the CPU quotas of cgroups of version 1, in cores."""
    quotas, periods = _read("cpu", "cpu.cfs_quota_us"), _read("cpu", "cpu.cfs_period_us")
    for quota, period in zip(quotas, periods, strict=False):
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:  # -1 is no quota
            yield int(quota) / int(period)


def _quotas_v2() -> Iterator[float]:
    """Yield the CPU quotas of cgroups of version 2, in cores."""
    for text in _read("", "cpu.max"):
        if found := re.fullmatch(r"(\d+) ([1-9]\d*)", text):
            yield int(found[1]) / int(found[2])


def _read(controller: str, name: str) -> Iterator[str]:
    """Yield the texts of a file of this process's cgroup and of all above it; "" is the controller of version 2."""
    mounts = [_CGROUPS / controller] if controller else [_CGROUPS, _CGROUPS / "unified"]
    path = PurePosixPath(_own_cgroup(controller).lstrip("/"))
    for mount in mounts:
        # In a container, its own cgroup is at the mount, and the path is that of the host.
        for folder in (path, *path.parents):
            try:
                yield (mount / folder / name).read_text().strip()
            except OSError:
                continue


def _own_cgroup(controller: str) -> str:
    """Return the path of this process's cgroup, by `/proc/self/cgroup`; "" if it has none."""
    try:
        lines = _OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controller in controllers.split(","):
            return path
    return ""
