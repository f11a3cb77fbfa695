"""pyllm, driven through its public API (see protocol.py): what is timed includes sampling, text and hand-over.

Its answer to load also has "level", the CPU level, and "cpu".
"""

from __future__ import annotations

import time
from typing import Any

from protocol import Engine, serve

import pyllm
from pyllm import machine

GREEDY: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True}
PAGE = 16  # tokens that the prefix cache finds together


class Pyllm(Engine):
    def __init__(self, llm: pyllm.LLM) -> None:
        import numpy as np

        self.llm = llm
        self.rng = np.random.default_rng(0)

    def ids(self, n: int) -> list[int]:
        ids: list[int] = self.rng.integers(0, self.llm.n_vocab, n).tolist()
        return ids

    def run(self, n_prompt: int, n_gen: int, n_depth: int, n_seqs: int) -> int:
        import numpy as np

        past = np.random.default_rng(1)  # the same every time, so that only its first run computes it
        depth = n_depth if n_prompt == 0 else n_depth // PAGE * PAGE
        pasts = [past.integers(0, self.llm.n_vocab, depth).tolist() for _ in range(n_seqs)]
        if depth:
            self.llm.generate(pasts, max_tokens=1, **GREEDY)
        prompts = [p + self.ids(n_prompt or int(not p)) for p in pasts]
        outs = self.llm.generate(prompts, max_tokens=n_gen + 1, **GREEDY)
        for out in outs:
            if len(out.tokens) != n_gen + 1 or (n_prompt and out.usage.cached_tokens != depth):
                raise RuntimeError(f"did not run as asked: {out.usage}, {out.finish_reason}")
        seconds = max(o.timings.prompt * (n_prompt > 0) + o.timings.generation * (n_gen > 0) for o in outs)
        return max(round(seconds * 1e9), 1)

    def first(self, n_prompt: int) -> int:
        prompt = self.ids(n_prompt)
        start = time.perf_counter_ns()
        self.llm.generate(prompt, max_tokens=1, **GREEDY)
        return time.perf_counter_ns() - start

    def logits(self, ids: list[int], first: int, file: str) -> int:
        self.llm.logits(ids, first=first).tofile(file)
        return self.llm.n_vocab


def load(
    model: str, n_threads: int, n_ctx: int, n_seqs: int, type_k: str, type_v: str
) -> tuple[dict[str, str], Engine]:
    llm = pyllm.LLM(
        model,
        n_threads=n_threads,
        n_ctx=n_ctx,
        n_seqs=max(n_seqs, 16),
        kv_tokens=(n_ctx + PAGE) * n_seqs,
        type_k=type_k,
        type_v=type_v,
    )
    level = machine.cpu_level()
    facts = {"engine": f"pyllm {pyllm.__version__} ({level})", "level": level, "cpu": machine.cpu_name()}
    return facts, Pyllm(llm)


if __name__ == "__main__":
    serve(load)
