"""Prints what a model computes on this machine, for comparing machines: generate.py MODEL.gguf [N_TOKENS]

MODEL.npz beside the model, if there is one, holds the prompt (`p1_ids`). The output is one JSON line: the CPU level in
use, the greedy continuation, and a digest of the prompt's logits.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

import pyllm
from pyllm._lib import ffi, lib

TEXT = "The capital of France is"


def main() -> None:
    model, n = Path(sys.argv[1]), int((sys.argv[2:] or ["8"])[0])
    ids = model.with_suffix(".npz")
    with pyllm.LLM(model, n_threads=2) as llm:
        prompt = np.load(ids)["p1_ids"].tolist() if ids.exists() else llm.tokenize(TEXT)
        logits = llm.logits(prompt)
        tokens = llm.generate(prompt, max_tokens=n, temperature=0, ignore_eos=True).tokens
    if len(tokens) != n:
        raise SystemExit(f"{model}: {len(tokens)} tokens instead of {n}")
    level = ffi.string(lib.pl_cpu_level_name(lib.pl_cpu_level())).decode()
    digest = hashlib.sha256(logits.tobytes()).hexdigest()[:16]
    print(json.dumps({"level": level, "tokens": tokens, "logits": digest}))


if __name__ == "__main__":
    main()
