"""starcoder2: LayerNorm, biases everywhere, rotary positions, a feed-forward network without gate (tanh GELU), a window
where the file has one.
"""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False, window=hp.sliding_window, act="gelu")
