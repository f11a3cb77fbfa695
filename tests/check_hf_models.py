"""Converts the models of make_hf_models.py and compares logits: python tests/check_hf_models.py OUT [NAME ...]

Prints, for each, the largest difference from transformers (compute="f32"), which may be 1e-3, or three times what
transformers itself is off from float64, and the standard deviation of the logits.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import pyllm
from pyllm.convert import convert


def main() -> int:
    out = Path(sys.argv[1])
    names = sys.argv[2:] or sorted(p.stem for p in out.glob("*.npz"))
    bad = 0
    for name in names:
        with tempfile.TemporaryDirectory() as tmp, np.load(out / f"{name}.npz") as wanted:
            try:
                path = convert(out / name, Path(tmp) / "model.gguf", "f32")
                with pyllm.LLM(path, compute="f32", kv_type="f32", n_threads=1) as llm:
                    logits = llm.logits([int(i) for i in wanted["ids"]])
            except Exception as e:
                print(f"{name:18} {type(e).__name__}: {str(e)[:300]}")
                bad += 1
                continue
            worst = float(np.abs(logits - wanted["logits"]).max())
            limit = max(1e-3, 3 * float(wanted["noise"]))
            bad += not worst < limit
            print(
                f"{name:18} {worst:.1e} of {wanted['logits'].std():.2f} {'' if worst < limit else 'WRONG'}", flush=True
            )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
