"""olmo: OLMo 1. LayerNorm without weights; q, k and v are held within bounds where the file gives them."""

from __future__ import annotations

import numpy as np

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    names = [f"blk.{i}.{name}" for i in range(hp.n_layer) for name in ("attn_norm", "ffn_norm")]
    for name in [*names, "output_norm"]:
        g.const(f"{name}.weight", np.ones(hp.n_embd, np.float32))
    decoder(g, hp, interleaved=True)
