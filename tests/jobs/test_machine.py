"""Cores and memory are the least of what affinity, containers and the machine allow."""

import os
from pathlib import Path

import psutil
import pytest

from musictag.jobs import machine

GIB = 1 << 30


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of cgroups of a machine with 64 cores and 256 GiB."""
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "_OWN_CGROUPS", tmp_path / "self")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(64))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"total": 256 * GIB}))
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def test_machine_without_limits_has_all_its_cores(cgroup: Path) -> None:
    assert (machine.n_cores(), machine.memory_bytes()) == (64, 256 * GIB)
    write(cgroup / "self", "0::/")
    write(cgroup / "cpu.max", "max 100000")
    write(cgroup / "memory.max", "max")
    write(cgroup / "cpu/cpu.cfs_quota_us", "-1")
    write(cgroup / "cpu/cpu.cfs_period_us", "100000")
    write(cgroup / "memory/memory.limit_in_bytes", str(2**63 - 4096))
    assert (machine.n_cores(), machine.memory_bytes()) == (64, 256 * GIB)


@pytest.mark.parametrize(("quota", "cores"), [("50000", 1), ("100000", 1), ("150000", 2), ("800000", 8)])
def test_quota_of_a_container(cgroup: Path, quota: str, cores: int) -> None:
    write(cgroup / "self", "0::/of the host, which the container does not see")
    write(cgroup / "cpu.max", f"{quota} 100000")
    write(cgroup / "memory.max", str(4 * GIB))
    assert (machine.n_cores(), machine.memory_bytes()) == (cores, 4 * GIB)


def test_quota_of_version_1(cgroup: Path) -> None:
    write(cgroup / "self", "7:memory:/a/b\n3:cpu,cpuacct:/a/b\n0::/")
    for folder, quota in (("a", "200000"), ("a/b", "400000")):
        write(cgroup / f"cpu/{folder}/cpu.cfs_quota_us", quota)
        write(cgroup / f"cpu/{folder}/cpu.cfs_period_us", "100000")
    write(cgroup / "memory/a/b/memory.limit_in_bytes", str(3 * GIB))
    assert (machine.n_cores(), machine.memory_bytes()) == (2, 3 * GIB)  # the quota of a group above counts, too


def test_quota_of_a_service_in_a_slice(cgroup: Path) -> None:
    write(cgroup / "self", "0::/system.slice/tagger.service")
    write(cgroup / "system.slice/tagger.service/cpu.max", "300000 100000")
    write(cgroup / "system.slice/memory.max", str(5 * GIB))
    assert (machine.n_cores(), machine.memory_bytes()) == (3, 5 * GIB)


def test_affinity_counts_beside_the_quota(cgroup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(cgroup / "cpu.max", "800000 100000")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert machine.n_cores() == 1


def test_memory_bounds_the_number_of_workers(cgroup: Path) -> None:
    assert machine.n_workers(GIB) == 64
    write(cgroup / "memory.max", str(4 * GIB))
    assert [machine.n_workers(n_bytes) for n_bytes in (GIB // 2, GIB, 2 * GIB, 8 * GIB)] == [6, 3, 1, 1]


def test_this_machine() -> None:
    assert 1 <= machine.n_cores() <= (os.cpu_count() or 1)
    assert GIB < machine.memory_bytes() <= psutil.virtual_memory().total
