"""phi2: Phi 1, 1.5, 2. LayerNorm, attention and feed-forward in parallel, partial rotary positions, biases."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False, parallel=True, act="gelu")
