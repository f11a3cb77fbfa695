"""pyllm, measured by its own bench module (see protocol.py)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from protocol import serve

import pyllm
from pyllm import bench, machine


def load(model: str, n_threads: int, n_ctx: int) -> tuple[str, Callable[[int, int], int]]:
    llm = pyllm.LLM(model, n_threads=n_threads, n_ctx=n_ctx)
    rng = np.random.default_rng(0)

    def run(n_prompt: int, n_gen: int) -> int:
        return bench.sample(llm, bench.Workload(n_prompt, n_gen), rng)

    return f"pyllm {pyllm.__version__} ({machine.cpu_level()})", run


if __name__ == "__main__":
    serve(load)
