"""llama.cpp through xllamacpp, whose wheels are built for AVX2: its server without HTTP (see protocol.py).

The server gives token ids to the engine and times itself: prompt_ms until the first token, predicted_ms from there.
Sampling is top-k with k = 1.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import xllamacpp as x
from protocol import Engine, Unsupported, serve

TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "bf16": 30}
N_VOCAB = 30000  # every vocabulary here is larger; which tokens does not matter to the speed


class Xllamacpp(Engine):
    def __init__(self, server: x.Server) -> None:
        self.server = server
        self.rng = random.Random(0)

    def ids(self, n: int) -> list[int]:
        return [self.rng.randrange(N_VOCAB) for _ in range(n)]

    def complete(self, prompt: list[int], n: int, cached: bool = False) -> dict[str, Any]:
        """The server's timings."""
        request = {
            "prompt": prompt, "n_predict": n, "ignore_eos": True, "cache_prompt": cached,
            "samplers": ["top_k"], "top_k": 1,
        }  # fmt: skip
        answer = self.server.handle_completions(request)
        timings: dict[str, Any] = answer["timings"]
        if timings["predicted_n"] != n:
            raise RuntimeError(f"did not run as asked: {timings}")
        return timings

    def run(self, n_prompt: int, n_gen: int, n_depth: int, n_seqs: int) -> int:
        if n_depth and n_seqs > 1:
            raise Unsupported("depth of several sequences")
        past = random.Random(1)
        tokens = [past.randrange(N_VOCAB) for _ in range(n_depth)]
        if tokens:
            self.complete(tokens, 1, cached=True)
        if n_seqs == 1:
            timings = self.complete(tokens + self.ids(n_prompt or 1), n_gen + 1, cached=bool(tokens))
            ms = timings["prompt_ms"] * (n_prompt > 0) + timings["predicted_ms"] * (n_gen > 0)
            return max(round(ms * 1e6), 1)
        spent: list[float] = []

        def one() -> None:
            spent.append(self.complete(self.ids(1), n_gen + 1)["predicted_ms"])

        threads = [threading.Thread(target=one) for _ in range(n_seqs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(spent) != n_seqs:
            raise RuntimeError("a sequence failed")
        return max(round(max(spent) * 1e6), 1)

    def first(self, n_prompt: int) -> int:
        prompt = self.ids(n_prompt)
        start = time.perf_counter_ns()
        self.complete(prompt, 1)
        return time.perf_counter_ns() - start


def load(
    model: str, n_threads: int, n_ctx: int, n_seqs: int, type_k: str, type_v: str
) -> tuple[dict[str, str], Engine]:
    p = x.CommonParams()
    p.model.path = model
    p.n_parallel = n_seqs
    p.n_ctx = n_seqs * (-(-n_ctx // 256) * 256)
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = n_threads
    p.cache_type_k, p.cache_type_v = TYPES[type_k], TYPES[type_v]
    p.cache_ram_mib = 0  # no copies of old prompts
    p.verbosity = -1
    server = x.Server(p)
    return {"engine": f"llama.cpp for AVX2 (xllamacpp {x.__version__})"}, Xllamacpp(server)


if __name__ == "__main__":
    serve(load)
