"""Every kernel beside what this machine can do: GB/s or GOP/s, and the share of the limit, measured in the same run.

    python -m bench.kernels [--level avx2] [mm_Q4]

Builds checkkern (or takes the one that the environment variable PYLLM_CHECKKERN names), asks it for the machine's
limits (read bandwidth; 8-bit dot products and float multiply-adds of each level's best instructions) and for its
benchmarks. A matmul is held against the arithmetic of its level, and with few tokens, when its weights come from
memory, against the bandwidth; what it comes closer to is what binds it.
"""

from __future__ import annotations

import argparse
import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FLOAT_WEIGHTS = ("_F32_", "_F16_", "_BF16_")


def build(folder: str) -> Path:
    """checkkern, built from this source tree."""
    source = Path(__file__).resolve().parent.parent
    for command in (
        ["cmake", "-S", str(source), "-B", folder, "-DPYLLM_TESTS=ON", f"-DPYLLM_PYTHON={sys.executable}"],
        ["cmake", "--build", folder, "--target", "checkkern", "-j2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr or done.stdout)
    return Path(folder) / "checkkern"


@functools.lru_cache
def checkkern() -> str:
    """The program that the environment names, or one that is built for this process."""
    named = os.environ.get("PYLLM_CHECKKERN")
    if named:
        return named
    folder = tempfile.mkdtemp(prefix="checkkern-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(build(folder))


def ask(*options: str) -> Any:
    """checkkern's answer, read from JSON."""
    done = subprocess.run([checkkern(), "--json", *options], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def machine_limits(threads: int = 1) -> dict[str, float]:
    """What checkkern --limits finds for so many threads together."""
    found: dict[str, float] = ask("--limits", "--threads", str(threads))
    return found


#: checkkern's matmuls with so many tokens at most read weights that no cache holds
FROM_MEMORY = 4


def share_of(result: dict[str, Any], limits: dict[str, float]) -> tuple[float, str] | None:
    """How much of the machine's limit a kernel reaches, and which limit that is: the one it comes closest to, "memory"
    or "arithmetic". None where no limit of the machine applies."""
    kernel: str = result["kernel"]
    if not kernel.startswith(("mm_", "mm2_", "qk_", "av_")):
        return None
    shares = []
    if kernel.startswith("mm_") and result["nt"] <= FROM_MEMORY:
        shares.append((result["gb_per_s"] / limits["read_gb_per_s"], "memory"))
    exact = kernel.startswith(("mm_", "mm2_", "qk_")) and not any(t in kernel for t in FLOAT_WEIGHTS)
    peak = limits.get(f"{'int8' if exact else 'float'}_gop_per_s_{kernel.split('/')[0].rsplit('_', 1)[1]}")
    if peak:
        shares.append((result["gop_per_s"] / peak, "arithmetic"))
    return max(shares, default=None)


def table(results: list[dict[str, Any]], limits: dict[str, float]) -> str:
    """Markdown: limits, then a line per kernel and size."""
    lines = ["| limit of one thread | |", "|---|--:|"]
    for name, value in limits.items():
        words = name.replace("_per_s", "/s").replace("_", " ").replace("gb", "GB").replace("gop", "GOP")
        lines.append(f"| {words} | {value:.1f} |")
    lines += ["", "| kernel | tokens | cycles/call | GB/s | GOP/s | of the limit |", "|---|--:|--:|--:|--:|--:|"]
    for r in results:
        found = share_of(r, limits)
        share = f"{found[0]:.0%} {found[1]}" if found else ""
        lines.append(
            f"| {r['kernel']} | {r['nt'] or ''} | {r['cycles_per_call']:.0f} | {r['gb_per_s']:.1f} "
            f"| {r['gop_per_s']:.1f} | {share} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("filter", nargs="?", default="", help="only kernels whose name contains this")
    parser.add_argument("--level", help="only kernels of this level")
    parser.add_argument("--json", metavar="FILE", help="write limits and results to FILE as well")
    args = parser.parse_args()
    limits = machine_limits()
    results = ask("--bench", *(["--level", args.level] if args.level else []), args.filter)
    print(table(results, limits))
    if args.json:
        Path(args.json).write_text(json.dumps({"limits": limits, "results": results}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
