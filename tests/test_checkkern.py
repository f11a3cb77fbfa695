"""Every C kernel at every level this CPU has, against the reference kernels (see tests/checkkern/)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, absent

from pyllm._lib import ffi, lib
from pyllm.machine import cpu_levels


@pytest.fixture(scope="session")
def checkkern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program: the environment's PYLLM_CHECKKERN, else built here."""
    built = os.environ.get("PYLLM_CHECKKERN")
    if built:
        return Path(built)
    if not shutil.which("cmake"):
        absent("checkkern needs CMake: install it, or set PYLLM_CHECKKERN to a built checkkern")
    if sys.platform == "win32":
        absent("checkkern needs POSIX signals and mmap")
    folder = tmp_path_factory.mktemp("checkkern")
    configure = [
        "cmake",
        "-S",
        str(ROOT),
        "-B",
        str(folder),
        "-DPYLLM_TESTS=ON",
        f"-DPYLLM_PYTHON={sys.executable}",
    ]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run(
        ["cmake", "--build", str(folder), "--target", "checkkern", "--parallel", "2"],
        check=True,
        capture_output=True,
    )
    return folder / "checkkern"


def _run(program: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *args], capture_output=True, text=True, timeout=300)


def _kernels(program: Path) -> list[str]:
    return _run(program, "--list").stdout.split()


@pytest.mark.parametrize("seed", ["1", None], ids=["fixed seed", "new seed"])
def test_every_kernel(checkkern: Path, seed: str | None) -> None:
    done = _run(checkkern, "--json", *(["--seed", seed] if seed else []))
    out = json.loads(done.stdout)
    wrong = [r for r in out["results"] if not r["ok"]]
    assert not wrong, f"checkkern --seed {out['seed']}: {wrong}"
    assert done.returncode == 0 and out["failed"] == 0
    assert [r["kernel"] for r in out["results"]] == _kernels(checkkern)


def test_all_levels_are_tried(checkkern: Path) -> None:
    names = _kernels(checkkern)
    assert len(names) == len(set(names))
    for name in cpu_levels():
        mine = _run(checkkern, "--list", "--level", name).stdout.split()
        assert mine == [n for n in names if n.endswith("_" + name)]
        assert f"mm_Q4_0_{name}" in mine


@pytest.mark.parametrize("how", ["bit", "read", "write", "trap"])
def test_broken_kernels_are_caught(checkkern: Path, how: str) -> None:
    """One flipped bit, a read or a write beyond a buffer, a trap: each must fail, and name its kernel."""
    done = _run(checkkern, "--break", how, "--seed", "1")
    lines = done.stdout.splitlines()
    names = _kernels(checkkern)
    assert done.returncode == 1
    assert lines[-1] == f"0 passed, {len(names)} failed"
    assert [line.split(":")[0] for line in lines if "FAILED" in line] == names
    reason = {"read": "SIG", "write": "wrote outside a buffer", "trap": "SIG"}.get(how, "")
    assert all(reason in line for line in lines if "FAILED" in line)


@pytest.mark.skipif(lib.pl_cpu_best() == 0, reason="this CPU has the reference kernels only")
def test_lowest_bit_is_caught(checkkern: Path) -> None:
    """Above the reference level one unit in the last place of one float is a failure."""
    best = ffi.string(lib.pl_cpu_level_name(lib.pl_cpu_best())).decode()
    done = _run(checkkern, "--break", "ulp", "--seed", "1", "--level", best)
    failed = [line.split(":")[0] for line in done.stdout.splitlines() if "FAILED" in line]
    assert failed == _run(checkkern, "--list", "--level", best).stdout.split()


def test_usage(checkkern: Path) -> None:
    assert _run(checkkern, "--nonsense").returncode == 2
    assert _run(checkkern, "--level", "none-such").returncode == 2
    nothing = _run(checkkern, "no such kernel")
    assert nothing.returncode == 1 and nothing.stdout.splitlines()[-1] == "0 passed, 0 failed"


def test_benchmarks(checkkern: Path) -> None:
    rows = json.loads(_run(checkkern, "--bench", "--json", "--level", "ref", "rope").stdout)
    assert rows and all(r["kernel"] == "rope_ref" and r["cycles_per_call"] > 0 and r["gb_per_s"] > 0 for r in rows)


@pytest.mark.alone
def test_limits(checkkern: Path) -> None:
    """Two threads do more together than half of one."""
    one, two = (json.loads(_run(checkkern, "--limits", "--json", "--threads", n).stdout) for n in ("1", "2"))
    assert one.keys() == two.keys() and one["read_gb_per_s"] > 0
    assert all(two[name] > one[name] / 2 > 0 for name in one)
    assert _run(checkkern, "--limits", "--threads", "0").returncode == 2
