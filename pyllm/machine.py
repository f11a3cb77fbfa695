"""The machine as this process may use it: cores, memory, CPU level and kernels."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from ._lib import ffi, lib


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None


def _cgroup_paths(controller: str) -> list[str]:
    """Folders of this process's cgroups, v2 then v1, from its own up to the root."""
    folders: list[str] = []
    for line in (_read("/proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base = "/sys/fs/cgroup"
        elif controller in controllers.split(","):
            base = f"/sys/fs/cgroup/{controllers}"
        else:
            continue
        while True:
            folders.append(base + path.rstrip("/"))
            if path in ("", "/"):
                break
            path = path.rsplit("/", 1)[0]
    return folders


def cpu_quota() -> float | None:
    """CPUs' worth of time that the tightest cgroup allows; None without a limit."""
    quotas = []
    for folder in _cgroup_paths("cpu"):
        v2 = (_read(f"{folder}/cpu.max") or "").split()
        if len(v2) == 2 and v2[0] != "max":
            quotas.append(int(v2[0]) / int(v2[1]))
        quota, period = _read(f"{folder}/cpu.cfs_quota_us"), _read(f"{folder}/cpu.cfs_period_us")
        if quota and period and int(quota) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def logical_cpus() -> set[int]:
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def physical_cores() -> int:
    """Cores among the CPUs that this process may run on, counting hyperthreads of one core once."""
    cpus = logical_cpus()
    if sys.platform == "linux":
        cores = {_read(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in cpus}
        return len(cores)
    if sys.platform == "darwin":
        import subprocess

        for key in ("hw.perflevel0.physicalcpu", "hw.physicalcpu"):  # performance cores where there are two kinds
            run = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, check=False)
            if run.returncode == 0 and run.stdout.strip().isdigit():
                return int(run.stdout)
    return len(cpus)


def default_threads() -> int:
    """Threads to use unless told: physical cores, within the affinity mask and the cgroup's quota."""
    quota = cpu_quota()
    cores = physical_cores()
    return max(1, min(cores, int(quota + 0.5) if quota else cores))


def available_memory() -> int | None:
    """Bytes that could be allocated now without swapping, the tightest cgroup counted; None if unknown."""
    limits: list[int] = []
    for line in (_read("/proc/meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            limits.append(int(line.split()[1]) * 1024)
    for folder in _cgroup_paths("memory"):
        for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            most, used = _read(f"{folder}/{limit}"), _read(f"{folder}/{usage}")
            if most and used and most.isdigit() and int(most) < 1 << 60:
                limits.append(max(0, int(most) - int(used) + _cgroup_cache(folder)))
    if limits:
        return min(limits)
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _cgroup_cache(folder: str) -> int:
    """Page cache counted as used that the kernel gives back under pressure."""
    for line in (_read(f"{folder}/memory.stat") or "").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.isdigit():
            return int(value)
    return 0


def cpu_level() -> str:
    """The instruction-set level in use."""
    name: str = ffi.string(lib.pl_cpu_level_name(lib.pl_cpu_level())).decode()
    return name


def cpu_levels() -> list[str]:
    """The levels that this CPU has, ascending."""
    return [ffi.string(lib.pl_cpu_level_name(i)).decode() for i in range(lib.pl_cpu_levels()) if lib.pl_cpu_has(i)]


def kernel_table() -> list[tuple[str, str, str]]:
    """(op, tensor type or "", level) of every kernel in use."""
    info = ffi.new("pl_kernel_info *")
    table: list[tuple[str, str, str]] = []
    while lib.pl_kernel_at(len(table), info) == 0:
        op, kind, level = (ffi.string(s).decode() for s in (info.op, info.type, info.level))
        table.append((op, kind, level))
    return table


def cpu_name() -> str:
    """What the CPU calls itself."""
    for line in (_read_utf8("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _read_utf8(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
