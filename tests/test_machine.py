"""What the process may use, from made-up files of /proc and /sys."""

from __future__ import annotations

import os
import sys

import pytest

from pyllm import machine
from pyllm._lib import ffi, lib

GIB = 1 << 30


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Fill it with files by path; no others exist."""
    made: dict[str, str] = {}
    monkeypatch.setattr(machine, "_read", made.get)
    return made


def meminfo(available: int) -> str:
    return f"MemTotal: 99999999 kB\nMemFree: 1 kB\nMemAvailable: {available // 1024} kB\nBuffers: 5 kB"


# ---- memory ------------------------------------------------------------------------------------------------------


def test_memory_without_cgroups(files: dict[str, str]) -> None:
    files["/proc/meminfo"] = meminfo(8 * GIB)
    assert machine.available_memory() == 8 * GIB


@pytest.mark.parametrize("own", ["/", "/user.slice/job"])
def test_memory_of_cgroup_v2(files: dict[str, str], own: str) -> None:
    files["/proc/meminfo"] = meminfo(8 * GIB)
    files["/proc/self/cgroup"] = f"0::{own}"
    folder = "/sys/fs/cgroup" + own.rstrip("/")
    files[f"{folder}/memory.max"] = str(2 * GIB)
    files[f"{folder}/memory.current"] = str(GIB)
    assert machine.available_memory() == GIB
    files[f"{folder}/memory.stat"] = f"anon 5\nfile 7\ninactive_file {GIB // 4}\nactive_file 9"
    assert machine.available_memory() == GIB + GIB // 4  # the page cache can be had back
    files[f"{folder}/memory.max"] = "max"
    assert machine.available_memory() == 8 * GIB


def test_the_tightest_of_nested_cgroups_counts(files: dict[str, str]) -> None:
    files["/proc/meminfo"] = meminfo(8 * GIB)
    files["/proc/self/cgroup"] = "0::/a/b/c"
    for folder, most in (("/a/b/c", "max"), ("/a/b", str(3 * GIB)), ("/a", str(4 * GIB))):
        files[f"/sys/fs/cgroup{folder}/memory.max"] = most
        files[f"/sys/fs/cgroup{folder}/memory.current"] = str(2 * GIB)
    assert machine.available_memory() == GIB


def test_memory_of_cgroup_v1(files: dict[str, str]) -> None:
    files["/proc/meminfo"] = meminfo(8 * GIB)
    files["/proc/self/cgroup"] = "11:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n1:name=systemd:/docker/x"
    folder = "/sys/fs/cgroup/memory/docker/x"
    files[f"{folder}/memory.limit_in_bytes"] = str(GIB)
    files[f"{folder}/memory.usage_in_bytes"] = str(GIB // 2)
    files[f"{folder}/memory.stat"] = f"cache 1\ninactive_file 77\ntotal_inactive_file {GIB // 8}"
    assert GIB // 2 < machine.available_memory() <= GIB // 2 + GIB // 8  # type: ignore[operator]
    files[f"{folder}/memory.limit_in_bytes"] = str((1 << 63) - 4096)  # v1 says "no limit" so
    assert machine.available_memory() == 8 * GIB


def test_a_container_sees_its_limits_at_the_root(files: dict[str, str]) -> None:
    """The path in /proc/self/cgroup is the host's and does not exist within: the mount's root is the container's."""
    files["/proc/meminfo"] = meminfo(8 * GIB)
    files["/proc/self/cgroup"] = "0::/kubepods/pod1"
    files["/sys/fs/cgroup/memory.max"] = str(GIB)
    files["/sys/fs/cgroup/memory.current"] = "0"
    files["/sys/fs/cgroup/cpu.max"] = "150000 100000"
    assert machine.available_memory() == GIB
    assert machine.cpu_quota() == 1.5


def test_more_used_than_allowed_is_nothing_left(files: dict[str, str]) -> None:
    files["/proc/self/cgroup"] = "0::/"
    files["/sys/fs/cgroup/memory.max"], files["/sys/fs/cgroup/memory.current"] = str(GIB), str(GIB + 5)
    assert machine.available_memory() == 0


def test_memory_of_this_machine() -> None:
    found = machine.available_memory()
    assert found is None or 1 << 20 < found < 1 << 50


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="asks sysconf")
def test_memory_where_there_is_no_proc(files: dict[str, str]) -> None:
    assert machine.available_memory() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# ---- threads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quota", "threads"),
    [("max 100000", 4), ("100000 100000", 1), ("250000 100000", 3), ("240000 100000", 2), ("10000 100000", 1), ("", 4)],
)
def test_threads_keep_to_the_quota(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch, quota: str, threads: int
) -> None:
    monkeypatch.setattr(machine, "physical_cores", lambda: 4)
    files["/proc/self/cgroup"] = "0::/x"
    files["/sys/fs/cgroup/x/cpu.max"] = quota
    assert machine.default_threads() == threads


def test_quota_of_cgroup_v1(files: dict[str, str]) -> None:
    files["/proc/self/cgroup"] = "3:cpu,cpuacct:/x\n4:memory:/x"
    folder = "/sys/fs/cgroup/cpu,cpuacct"
    files[f"{folder}/x/cpu.cfs_quota_us"], files[f"{folder}/x/cpu.cfs_period_us"] = "-1", "100000"
    assert machine.cpu_quota() is None
    files[f"{folder}/cpu.cfs_quota_us"], files[f"{folder}/cpu.cfs_period_us"] = "50000", "100000"
    assert machine.cpu_quota() == 0.5
    assert machine.default_threads() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's topology")
def test_hyperthreads_of_a_core_count_once(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu in range(8):
        files[f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"] = f"{cpu % 4},{cpu % 4 + 4}"
    monkeypatch.setattr(machine, "logical_cpus", lambda: set(range(8)))
    assert machine.physical_cores() == machine.default_threads() == 4
    monkeypatch.setattr(machine, "logical_cpus", lambda: {0, 4, 1})  # affinity: one core twice, half of another
    assert machine.physical_cores() == 2
    files.clear()  # no topology: every CPU is taken for a core
    assert machine.physical_cores() == 3


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="sets the affinity mask")
def test_threads_keep_to_the_affinity_mask() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert machine.logical_cpus() == {min(before)}
        assert machine.default_threads() == 1
    finally:
        os.sched_setaffinity(0, before)


# ---- CPU level and kernels ---------------------------------------------------------------------------------------


def test_levels_and_kernels() -> None:
    names = [ffi.string(lib.pl_cpu_level_name(i)).decode() for i in range(lib.pl_cpu_levels())]
    levels = machine.cpu_levels()
    assert levels[0] == "ref" == names[0] and machine.cpu_level() in levels
    before = lib.pl_cpu_level()
    try:
        for index, level in enumerate(names):
            if level not in levels:
                assert lib.pl_cpu_set_level(index) == lib.PL_E_ARG
                continue
            assert lib.pl_cpu_set_level(index) == 0
            assert machine.cpu_level() == level
            table = machine.kernel_table()
            assert {used for _, _, used in table} <= set(names[: index + 1]) & set(levels)
            assert len({(op, kind) for op, kind, _ in table}) == len(table)
            assert ("mm", "Q4_1") in {(op, kind) for op, kind, _ in table}
        assert lib.pl_cpu_set_level(len(names)) == lib.PL_E_ARG and lib.pl_cpu_set_level(-1) == lib.PL_E_ARG
    finally:
        lib.pl_cpu_set_level(before)
    assert machine.cpu_name()
