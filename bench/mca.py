"""Cycles per block of the Arm matrix and attention kernels by static analysis, so that no Arm machine need be at hand.

    python -m bench.mca [--cc aarch64-linux-gnu-gcc] [--mca llvm-mca] [--tokens 2 4] [--ops mm qk av] [Q4_K]

Compiles the kernels of the rooms neon, dotprod and i8mm to assembly, takes the innermost loop of each tile (a block of
32 values of 16 rows, times so many tokens) and asks llvm-mca what it costs. "bound" is the kind of unit that is busy
most, and the share of the cycles that it is. At best A76 and N1 do 32 multiply-adds a cycle by sdot, V1 64, and 128 by
smmla. Of attention (qk: scores, av: weighted values) the block is 32 values of 16 keys, for one query row of the best
tile; two sdot, one for each byte of a query, count as one.

It takes LLVM 19: earlier ones have no models of Neoverse N1 and V1. No LLVM has one of Cortex-A76; Cortex-A57's, which
is narrower, is taken for it. Neoverse N1 is the same core for servers. bench/mca.md holds the result.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KERN = Path(__file__).resolve().parent.parent / "csrc"
ROOMS = {"neon": "-march=armv8-a", "dotprod": "-march=armv8.2-a+dotprod", "i8mm": "-march=armv8.2-a+dotprod+i8mm"}
#: CPUs, and the rooms that they can run
CPUS = {"cortex-a76": ("neon", "dotprod"), "neoverse-n1": ("neon", "dotprod"), "neoverse-v1": tuple(ROOMS)}
#: kinds of units, by the letter that the models call them
UNITS = {"V": "vector", "W": "vector", "X": "vector", "L": "load", "S": "store", "D": "store"}
BRANCH = re.compile(r"\s*(b|b\.?(eq|ne|cs|cc|mi|pl|vs|vc|hi|ls|ge|lt|gt|le|any|first|none)|cbn?z|tbn?z)\s")
TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4"]
MACS = re.compile(r"^\s*(sdot|smmla|smlal2?|smull2?)\b")
#: multiply-adds of one such instruction
WIDTH = {"sdot": 16, "smmla": 32, "smlal": 8, "smlal2": 8, "smull": 8, "smull2": 8}
ROWS, BLOCK = 16, 32
CACHE_TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0"]
FLOAT_MACS = re.compile(r"^\s*(fmla|smlal2?|sdot)\s+v\d+\.(\w+),")


@dataclass
class Cost:
    """What llvm-mca says of one loop: cycles per block, the busiest kind of unit and its share of them."""

    cycles: float
    bound: str
    share: float


def assembly(cc: str, room: str, name: str) -> str:
    """A kernel's file as assembly, with the options of CMakeLists.txt."""
    source = KERN / "kern" / room / f"{name}.c"
    in_order = [] if "clang" in cc else ["-fno-schedule-insns"]
    options = ["-std=gnu11", "-O3", "-DNDEBUG", "-ffp-contract=off", "-fno-math-errno", "-fPIC", "-g0", "-S", "-o", "-"]
    done = subprocess.run(
        [cc, *options, *in_order, ROOMS[room], f"-I{KERN}", str(source)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def loops(text: str, function: str) -> list[list[str]]:
    """The lines of every loop of a function: from a label to the last branch back to it."""
    lines = re.split(rf"\n{function}:.*\n", text, maxsplit=1)[1].split("\n\t.size\t", 1)[0].splitlines()
    lines = [line.split("//")[0].rstrip() for line in lines]
    label = {m[1]: k for k, line in enumerate(lines) if (m := re.match(r"(\.L\w+):", line))}
    found = []
    for k, line in enumerate(lines):
        branch = re.match(r"\t(?:b\.?\w*|cbn?z\s+\w+,|tbn?z\s+\w+,.*,)\s+(\.L\w+)", line)
        if branch and label.get(branch[1], k) < k:
            found.append(lines[label[branch[1]] : k + 1])
    return found


def hot_loop(text: str, tokens: int) -> tuple[list[str], float]:
    """The innermost loop that multiplies, and how many blocks one pass through it does."""
    work = []
    for body in loops(text, f"tile{tokens}"):
        macs = sum(WIDTH[m[1]] for line in body if (m := MACS.match(line)))
        if macs:
            work.append((len(body), body, macs))
    _, body, macs = min(work, key=lambda w: w[0])
    columns = tokens + tokens % 2 if any("smmla" in line for line in body) else tokens
    return body, max(1.0, round(macs / (ROWS * BLOCK * columns)))


def attention_loops(text: str, function: str) -> list[tuple[list[str], float]]:
    """The innermost loops that multiply, and how many blocks of one query row a pass through each does."""
    found = {"\n".join(body): body for body in loops(text, function)}
    work = []
    for code, body in found.items():
        multiplied = [m[1] for line in body if (m := FLOAT_MACS.match(line))]
        if multiplied and not any(other != code and other in code for other in found):
            work.append((body, sum(8 if name == "sdot" else 4 for name in multiplied) / (ROWS * BLOCK)))
    return work


def analyse(mca: str, cpu: str, body: list[str], blocks: float) -> Cost:
    body = [re.sub("0xf{14}(?=..$)", "0x", line) for line in body]  # gcc's spelling of a negative byte
    code = "\n".join(line for line in body if not BRANCH.match(line) and not re.match(r"\s*\.", line))
    command = [mca, "-mtriple=aarch64", f"-mcpu={cpu}", "-mattr=+dotprod,+i8mm", "-json", "-iterations=50"]
    done = subprocess.run(command, input=code, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    out: dict[str, Any] = json.loads(done.stdout)
    region = out["CodeRegions"][0]
    cycles = region["SummaryView"]["TotalCycles"] / region["SummaryView"]["Iterations"]
    busy: dict[str, list[float]] = {}
    for name in out["TargetInfo"]["Resources"]:
        busy.setdefault(unit(name), []).append(0.0)
    total = len(region["Instructions"])
    for use in region["ResourcePressureView"]["ResourcePressureInfo"]:
        if use["InstructionIndex"] == total:  # the sum over all instructions
            busy[unit(out["TargetInfo"]["Resources"][use["ResourceIndex"]])][0] += use["ResourceUsage"]
    share = {kind: sum(cycles) / len(cycles) for kind, cycles in busy.items()}
    top = max(share, key=lambda kind: share[kind])
    return Cost(cycles / blocks, top, share[top] / cycles)


def unit(name: str) -> str:
    """The kind of a unit that a model calls N1UnitV0, for example."""
    return UNITS.get(name.split("Unit")[1][0], "integer")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("filter", nargs="?", default="", help="only types whose name contains this")
    parser.add_argument("--cc", default="aarch64-linux-gnu-gcc")
    parser.add_argument("--mca", default="llvm-mca")
    parser.add_argument("--room", choices=ROOMS, help="only this room")
    parser.add_argument("--tokens", type=int, nargs="+", default=[2, 4], help="tile sizes of mm, at most 4")
    parser.add_argument("--ops", choices=["mm", "qk", "av"], nargs="+", default=["mm", "qk", "av"])
    args = parser.parse_args()
    print("| kernel | tokens |" + "".join(f" {cpu}: cycles | MAC/cycle | bound |" for cpu in CPUS))
    print("|---|--:|" + "--:|--:|---|" * len(CPUS))
    for room in [args.room] if args.room else ROOMS:
        for kind in (t for t in TYPES if args.filter in t and "mm" in args.ops):
            text = assembly(args.cc, room, kind.lower())
            for tokens in args.tokens:
                body, blocks = hot_loop(text, tokens)
                report(args.mca, f"mm_{kind}_{room}", room, tokens, [(body, blocks)])
        for op in (o for o in ("qk", "av") if o in args.ops):
            for kind in (t for t in CACHE_TYPES if args.filter in t):
                name = f"{op}_quant" if kind in ("Q8_0", "Q4_0") else op
                if (KERN / "kern" / room / f"{name}.c").exists():
                    bodies = attention_loops(assembly(args.cc, room, name), f"pl_{op}_{kind}_{room}")
                    report(args.mca, f"{op}_{kind}_{room}", room, 1, bodies)


def report(mca: str, name: str, room: str, tokens: int, bodies: list[tuple[list[str], float]]) -> None:
    """A line of the table, of the quickest of these loops."""
    line = f"| {name} | {tokens} |"
    for cpu in CPUS:
        if room not in CPUS[cpu]:
            line += " | | |"
            continue
        cost = min((analyse(mca, cpu, *loop) for loop in bodies), key=lambda c: c.cycles)
        rate = ROWS * BLOCK * tokens / cost.cycles
        line += f" {cost.cycles:.0f} | {rate:.1f} | {cost.bound} {100 * cost.share:.0f} % |"
    print(line, flush=True)


if __name__ == "__main__":
    main()
