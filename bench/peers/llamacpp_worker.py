"""llama.cpp through llama-cpp-python, driven as llama-bench and llama-batched-bench drive it (see protocol.py).

Prompt processing is one llama_decode per batch of 2048 random tokens, generation one per random token of each
sequence, with no sampling; n_batch, n_ubatch and flash attention are llama.cpp's defaults. The tokens before the timed
ones are computed once and stay in the cache.
"""

from __future__ import annotations

import ctypes
import random
import time
from typing import Any

import llama_cpp as lc
from protocol import Engine, serve

N_BATCH = 2048
TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "bf16": 30}


@lc.llama_log_callback
def _quiet(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    pass


class LlamaCpp(Engine):
    """A context for single sequences, and another one for several, made when it is needed."""

    def __init__(self, weights: Any, params: Any, n_ctx: int) -> None:
        self.weights, self.n_ctx = weights, n_ctx
        self.n_vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(weights))
        self.rng = random.Random(0)
        self.params = params
        self.contexts: dict[int, Any] = {}
        self.depths: dict[int, int] = {}  # tokens that each context keeps in every sequence
        self.context(1)
        self.batch = lc.llama_batch_init(N_BATCH, 0, 1)

    def context(self, n_seqs: int) -> Any:
        """The context for n_seqs sequences."""
        if n_seqs not in self.contexts:
            self.params.n_seq_max = n_seqs
            self.params.n_ctx = n_seqs * (-(-self.n_ctx // 256) * 256)
            self.params.n_batch = max(N_BATCH, n_seqs)
            context = lc.llama_init_from_model(self.weights, self.params)
            if not context:
                raise RuntimeError(f"llama.cpp cannot make a context for {n_seqs} sequences")
            self.contexts[n_seqs], self.depths[n_seqs] = context, 0
        return self.contexts[n_seqs]

    def decode(self, context: Any, tokens: list[tuple[int, int, int, bool]]) -> None:
        """One llama_decode of (token, position, sequence, whether logits are wanted)."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, (token, pos, seq, wanted) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, pos, 1
            batch.seq_id[i][0], batch.logits[i] = seq, wanted
        if lc.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")
        lc.llama_synchronize(context)

    def prompt(self, context: Any, start: int, n: int, seq: int) -> None:
        """n random tokens of one sequence from position start."""
        for first in range(start, start + n, N_BATCH):
            last = min(first + N_BATCH, start + n)
            self.decode(context, [(self.random(), p, seq, p == start + n - 1) for p in range(first, last)])

    def random(self) -> int:
        return self.rng.randrange(self.n_vocab)

    def to_depth(self, n_seqs: int, depth: int) -> Any:
        """The context with exactly `depth` tokens in each sequence."""
        context = self.context(n_seqs)
        memory = lc.llama_get_memory(context)
        if self.depths[n_seqs] != depth or not depth:
            lc.llama_memory_clear(memory, True)
            for seq in range(n_seqs if depth else 0):
                self.prompt(context, 0, depth, seq)
            self.depths[n_seqs] = depth
        else:
            for seq in range(n_seqs):
                lc.llama_memory_seq_rm(memory, seq, depth, -1)
        return context

    def run(self, n_prompt: int, n_gen: int, n_depth: int, n_seqs: int) -> int:
        context = self.to_depth(n_seqs, n_depth)
        start = time.perf_counter_ns()
        if n_prompt:
            self.prompt(context, n_depth, n_prompt, 0)
        for p in range(n_depth + n_prompt, n_depth + n_prompt + n_gen):
            self.decode(context, [(self.random(), p, seq, True) for seq in range(n_seqs)])
        return time.perf_counter_ns() - start

    def first(self, n_prompt: int) -> int:
        context = self.to_depth(1, 0)
        sampler = lc.llama_sampler_init_greedy()
        start = time.perf_counter_ns()
        self.prompt(context, 0, n_prompt, 0)
        lc.llama_sampler_sample(sampler, context, -1)
        ns = time.perf_counter_ns() - start
        lc.llama_sampler_free(sampler)
        return ns

    def logits(self, ids: list[int], first: int, file: str) -> int:
        context = self.to_depth(1, 0)
        with open(file, "wb") as out:
            for at in range(0, len(ids), N_BATCH):
                rows = range(at, min(at + N_BATCH, len(ids)))
                self.decode(context, [(ids[p], p, 0, p >= first) for p in rows])
                for p in rows:
                    if p >= first:
                        row = lc.llama_get_logits_ith(context, p - at)
                        out.write(ctypes.string_at(row, self.n_vocab * 4))
        return int(self.n_vocab)


def load(
    model: str, n_threads: int, n_ctx: int, n_seqs: int, type_k: str, type_v: str
) -> tuple[dict[str, str], Engine]:
    lc.llama_log_set(_quiet, None)
    lc.llama_backend_init()
    weights = lc.llama_model_load_from_file(model.encode(), lc.llama_model_default_params())
    if not weights:
        raise RuntimeError(f"llama.cpp cannot load {model}")
    params = lc.llama_context_default_params()
    params.n_threads = params.n_threads_batch = n_threads
    params.type_k, params.type_v = TYPES[type_k], TYPES[type_v]
    return {"engine": f"llama.cpp (llama-cpp-python {lc.__version__})"}, LlamaCpp(weights, params, n_ctx)


if __name__ == "__main__":
    serve(load)
