"""qwen: Qwen 1. As qwen2 with fused q, k, v; the file gives twice the width of its feed-forward network."""

from __future__ import annotations

import dataclasses

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, dataclasses.replace(hp, n_ff=max(1, hp.n_ff // 2)), interleaved=False)
