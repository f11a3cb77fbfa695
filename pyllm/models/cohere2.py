"""cohere2: Command R7B. LayerNorm without bias, attention and feed-forward in parallel, logits times a factor.

Three windowed layers with rotary positions to each one that sees everything and has none.
"""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder, rope_table
from .hparams import Hparams

PATTERN = 4


def build(g: Graph, hp: Hparams) -> None:
    table = rope_table(g, hp)
    layers = [(table, hp.sliding_window) if (i + 1) % PATTERN else (None, 0) for i in range(hp.n_layer)]
    decoder(g, hp, interleaved=True, layers=layers, parallel=True, logit_scale=hp.keys.real("logit_scale", 1.0))
