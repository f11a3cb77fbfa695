"""OpenVINO GenAI, which reads GGUF files of the architectures it knows (see protocol.py).

Everything but the number of threads and the precision of the KV cache is as the package chooses. Its own metrics give
the times: until the first token, and from there.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as g
from protocol import Engine, Unsupported, serve

KV = {"f32": "f32", "f16": "f16", "bf16": "bf16", "q8_0": "u8", "q4_0": "u4"}
N_VOCAB = 30000  # every vocabulary here is larger; which tokens does not matter to the speed


class OpenVino(Engine):
    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.rng = np.random.default_rng(0)

    def generate(self, ids: np.ndarray, n: int) -> tuple[float, float]:
        """ids [sequences, tokens]: milliseconds until the first tokens, and from there until all have n."""
        config = g.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = n, True, False
        result = self.pipeline.generate(ov.Tensor(ids.astype(np.int64)), config)
        if [len(tokens) for tokens in result.tokens] != [n] * len(ids):
            raise RuntimeError("did not run as asked")
        metrics = result.perf_metrics
        total = metrics.get_generate_duration().mean
        first = metrics.get_ttft().mean
        return first, total - first

    def run(self, n_prompt: int, n_gen: int, n_depth: int, n_seqs: int) -> int:
        if n_depth and (n_prompt or n_seqs > 1):
            raise Unsupported("a depth for prompt processing or for several sequences")
        ids = self.rng.integers(0, N_VOCAB, (n_seqs, max(n_depth + n_prompt, 1)))
        first, rest = self.generate(ids, n_gen + 1)
        return max(round((first * (n_prompt > 0) + rest * (n_gen > 0)) * 1e6), 1)

    def first(self, n_prompt: int) -> int:
        ids = self.rng.integers(0, N_VOCAB, (1, n_prompt))
        start = time.perf_counter_ns()
        self.generate(ids, 1)
        return time.perf_counter_ns() - start


def load(
    model: str, n_threads: int, n_ctx: int, n_seqs: int, type_k: str, type_v: str
) -> tuple[dict[str, str], Engine]:
    if type_k != type_v:
        raise Unsupported("different types of K and V")
    options = {"INFERENCE_NUM_THREADS": n_threads, "KV_CACHE_PRECISION": KV[type_k]}
    pipeline = g.LLMPipeline(model, "CPU", **options)
    return {"engine": f"OpenVINO GenAI {g.__version__}"}, OpenVino(pipeline)


if __name__ == "__main__":
    serve(load)
