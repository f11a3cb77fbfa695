"""bench/kernels.py: which limit of the machine a kernel is held against."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from conftest import ROOT

sys.path.append(str(ROOT))  # behind the installed pyllm
from bench import kernels

LIMITS = {"read_gb_per_s": 40.0, "int8_gop_per_s_avx2": 400.0, "float_gop_per_s_avx2": 100.0}


def result(kernel: str, nt: int | None, gb: float, gop: float) -> dict[str, Any]:
    return {"kernel": kernel, "nt": nt, "gb_per_s": gb, "gop_per_s": gop, "cycles_per_call": 10.0}


@pytest.mark.parametrize(
    ("measured", "share"),
    [
        (result("mm_Q4_0_avx2", 1, 30, 100), (0.75, "memory")),
        (result("mm_Q4_0_avx2", 4, 30, 320), (0.8, "arithmetic")),
        (result("mm_Q4_0_avx2", 64, 80, 300), (0.75, "arithmetic")),  # out of a cache
        (result("mm_F16_avx2", 64, 1, 50), (0.5, "arithmetic")),
        (result("mm_Q4_0_ref", 1, 4, 1), (0.1, "memory")),
        (result("mm_Q4_0_ref", 64, 4, 1), None),
        (result("rope_avx2", None, 30, 30), None),
        (result("qk_F16_avx2", 8, 30, 25), (0.25, "arithmetic")),
        (result("qk_Q8_0_avx2", 8, 30, 100), (0.25, "arithmetic")),
        (result("av_Q8_0_avx2", 8, 30, 25), (0.25, "arithmetic")),
    ],
)
def test_share_of_the_limit(measured: dict[str, Any], share: tuple[float, str] | None) -> None:
    assert kernels.share_of(measured, LIMITS) == (None if share is None else (pytest.approx(share[0]), share[1]))


def test_table() -> None:
    lines = kernels.table([result("mm_Q4_0_avx2", 1, 30, 100), result("rope_avx2", None, 1, 1)], LIMITS).splitlines()
    assert "| read GB/s | 40.0 |" in lines
    assert lines[-2] == "| mm_Q4_0_avx2 | 1 | 10 | 30.0 | 100.0 | 75% memory |"
    assert lines[-1] == "| rope_avx2 |  | 10 | 1.0 | 1.0 |  |"
