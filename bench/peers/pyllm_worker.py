"""pyllm, measured by its own bench module (see protocol.py)."""

from __future__ import annotations

import numpy as np
from protocol import Run, serve

import pyllm
from pyllm import bench, machine


def load(model: str, n_threads: int, n_ctx: int) -> tuple[dict[str, str], Run]:
    llm = pyllm.LLM(model, n_threads=n_threads, n_ctx=n_ctx)
    rng = np.random.default_rng(0)

    def run(n_prompt: int, n_gen: int) -> int:
        return bench.sample(llm, bench.Workload(n_prompt, n_gen), rng)

    engine = f"pyllm {pyllm.__version__} ({machine.cpu_level()})"
    return {"engine": engine, "path": str(llm.path), "cpu": machine.cpu_name()}, run


if __name__ == "__main__":
    serve(load)
