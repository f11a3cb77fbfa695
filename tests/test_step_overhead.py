"""The engine's own work per step; limits are several times what is usual, for slow machines.

`python -m bench.steps --overhead` measures it with a real model.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

sys.path.append(str(ROOT))  # behind the installed pyllm
import pyllm
from bench import steps

pytestmark = pytest.mark.alone


@pytest.mark.parametrize(("n_seqs", "limit"), [(1, 600e-6), (16, 3e-3)])
def test_step_overhead(benchmark: Any, data: Path, n_seqs: int, limit: float) -> None:
    """CPU time of the engine thread outside C per step: the median of the quicker half."""
    spent: list[float] = []
    with pyllm.LLM(data / "models" / "qwen2.gguf", n_ctx=64, n_threads=1, kv_tokens=1024) as llm:

        def run() -> None:
            spent.extend(steps.overhead(llm, n_seqs, 32, time.thread_time))

        benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    usual = statistics.median(sorted(spent)[: len(spent) // 2])
    benchmark.extra_info["us outside C"] = 1e6 * usual
    assert usual < limit
