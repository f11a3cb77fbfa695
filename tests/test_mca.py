"""bench/mca.py finds the loop that matters, and the work in it, in what compilers print."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent))  # behind the installed pyllm

from bench import mca

# a function with an outer loop, an inner one that only copies, and the one that multiplies, as gcc spells them
GCC = """
\t.type\ttile2, %function
tile2:
.LFB1:
\tcbz\tx1, .L1
.L4:
\tadd\tx3, x3, 1
.L3:
\tldr\tq0, [x0], 16
\tbit\tv1.16b, v0.16b, v2.16b
\tmovi\tv3.16b, 0xffffffffffffffe0
""" + "\tsdot\tv4.4s, v1.16b, v0.4b[1]\n" * 64 + """\tcmp\tx0, x2
\tbne\t.L3
.L5:
\tldr\tq0, [x4], 16
\tcbnz\tx4, .L5
\tb.lt\t.L4
.L1:
\tret
\t.size\ttile2, .-tile2
"""  # fmt: skip


def test_hot_loop() -> None:
    body, blocks = mca.hot_loop(GCC, 2)
    assert body[0] == ".L3:" and body[-1] == "\tbne\t.L3"
    assert blocks == 1  # 64 sdot of 16 products for 16 rows, 32 values and 2 tokens
    assert len(mca.loops(GCC, "tile2")) == 3


def test_attention_loops() -> None:
    """The innermost loops that multiply; two sdot are one."""
    ((body, blocks),) = mca.attention_loops(GCC, "tile2")
    assert body[0] == ".L3:" and blocks == 64 * 16 / 2 / (16 * 32)


def test_branches_are_told_from_bit_operations() -> None:
    for line in ("\tb\t.L1", "\tbne\t.L1", "\tb.ne\t.L1", "\tcbz\tx1, .L1", "\ttbnz\tx1, #0, .L1"):
        assert mca.BRANCH.match(line), line
    for line in ("\tbit\tv1.16b, v0.16b, v2.16b", "\tbsl\tv1.16b, v0.16b, v2.16b", "\tbic\tx0, x1, x2"):
        assert not mca.BRANCH.match(line), line


def test_units() -> None:
    assert [mca.unit(n) for n in ("N1UnitV0", "A57UnitW", "V1UnitL01.\0", "V1UnitM0")] == [
        "vector", "vector", "load", "integer",
    ]  # fmt: skip


@pytest.mark.skipif(not shutil.which("llvm-mca-19"), reason="needs LLVM 19's llvm-mca")
def test_costs() -> None:
    body, blocks = mca.hot_loop(GCC, 2)
    cost = mca.analyse("llvm-mca-19", "neoverse-n1", body, blocks)
    assert cost.bound == "vector" and cost.cycles >= 32 and 0 < cost.share <= 1
