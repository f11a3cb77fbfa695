"""How fast a token is chosen among a large vocabulary; limits are far above what is usual, for slow machines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pyllm._lib import ffi
from pyllm.sampler import Sampler, SamplingParams

pytestmark = pytest.mark.alone
N_VOCAB = 128_256
ORDERS = {
    "model": np.random.default_rng(0).standard_t(5, N_VOCAB) * 3,
    "ascending": np.arange(N_VOCAB) / 1e4,
    "constant": np.zeros(N_VOCAB),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("params", [{"temperature": 0.0}, {"top_k": 40, "top_p": 1.0, "min_p": 0.0}, {}], ids=str)
def test_sample(benchmark: Any, params: dict[str, Any], order: str) -> None:
    """Greedy, top-40 and the default chain: some 10 us each; a sort of the vocabulary would take 10 ms."""
    sampler = Sampler(SamplingParams(seed=1, **params), N_VOCAB)
    row = ORDERS[order].astype(np.float32)
    logits = ffi.from_buffer("float[]", row)
    token = benchmark.pedantic(sampler.sample, (logits,), rounds=200, warmup_rounds=10)
    assert row[token] >= np.sort(row)[-40]
    assert not benchmark.enabled or benchmark.stats.stats.median < 5e-4
