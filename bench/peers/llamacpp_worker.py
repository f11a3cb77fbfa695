"""llama.cpp through llama-cpp-python, driven as llama-bench drives it (see protocol.py).

Prompt processing is one llama_decode per batch of 2048 random tokens, generation one per random token, each on an
empty cache and with no sampling; n_batch, n_ubatch and the types of the cache are llama.cpp's defaults.
"""

from __future__ import annotations

import ctypes
import random
import time

import llama_cpp as lc
from protocol import Run, serve

N_BATCH = 2048


@lc.llama_log_callback
def _quiet(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    pass


def load(model: str, n_threads: int, n_ctx: int) -> tuple[dict[str, str], Run]:
    lc.llama_log_set(_quiet, None)
    lc.llama_backend_init()
    weights = lc.llama_model_load_from_file(model.encode(), lc.llama_model_default_params())
    if not weights:
        raise RuntimeError(f"llama.cpp cannot load {model}")
    params = lc.llama_context_default_params()
    params.n_ctx, params.n_batch = n_ctx, N_BATCH
    params.n_threads = params.n_threads_batch = n_threads
    context = lc.llama_init_from_model(weights, params)
    if not context:
        raise RuntimeError("llama.cpp cannot make a context")
    n_vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(weights))
    rng = random.Random(0)

    def decode(n: int) -> None:
        tokens = (lc.llama_token * n)(*(rng.randrange(n_vocab) for _ in range(n)))
        if lc.llama_decode(context, lc.llama_batch_get_one(tokens, n)):
            raise RuntimeError("llama_decode failed")
        lc.llama_synchronize(context)

    def run(n_prompt: int, n_gen: int) -> int:
        lc.llama_memory_clear(lc.llama_get_memory(context), True)
        start = time.perf_counter_ns()
        for first in range(0, n_prompt, N_BATCH):
            decode(min(N_BATCH, n_prompt - first))
        for _ in range(n_gen):
            decode(1)
        return time.perf_counter_ns() - start

    return {"engine": f"llama.cpp (llama-cpp-python {lc.__version__})"}, run


if __name__ == "__main__":
    serve(load)
