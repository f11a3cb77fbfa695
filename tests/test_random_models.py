"""Architectures for which there is no golden of transformers, against llama.cpp on random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import random_models

import pyllm

pytestmark = pytest.mark.native
LOGITS = np.load(Path(__file__).parent / "data" / "llamacpp_logits.npz")
#: llama.cpp looks GELU up in a table of 16-bit numbers
WITH_GELU = {"codeshell", "gemma4", "gemma4+experts", "phi2", "starcoder", "starcoder2"}


@pytest.mark.parametrize("name", random_models.MODELS)
def test_logits(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.gguf"
    random_models.write(name, path)
    with pyllm.LLM(path, compute="f32", kv_type="f32", n_threads=2) as llm:
        got = llm.logits(random_models.prompt())[1::6]
    want = LOGITS[name]
    assert np.abs(got - want).max() <= (2e-2 if name in WITH_GELU else 3e-4)
    assert want.std() > 0.5  # so that the bound means something
