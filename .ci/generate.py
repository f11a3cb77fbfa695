"""Prints the CPU level and what a model computes, for comparing machines: generate.py MODEL.gguf [N_TOKENS]

The output is one JSON line: the level, the greedy continuation of a fixed prompt, and a digest of the prompt's logits.
"""

from __future__ import annotations

import hashlib
import json
import sys

import pyllm
from pyllm._lib import ffi, lib

PROMPT = [3, 17, 42, 5, 99, 256, 31, 7, 12, 200]


def main() -> None:
    model, n = sys.argv[1], int((sys.argv[2:] or ["8"])[0])
    with pyllm.LLM(model, n_threads=2) as llm:
        logits = llm.logits(PROMPT)
        tokens = llm.generate(PROMPT, max_tokens=n, temperature=0, ignore_eos=True).tokens
    if len(tokens) != n:
        raise SystemExit(f"{model}: {len(tokens)} tokens instead of {n}")
    level = ffi.string(lib.pl_cpu_level_name(lib.pl_cpu_level())).decode()
    digest = hashlib.sha256(logits.tobytes()).hexdigest()[:16]
    print(json.dumps({"level": level, "tokens": tokens, "logits": digest}))


if __name__ == "__main__":
    main()
