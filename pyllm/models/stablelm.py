"""stablelm: StableLM 2 (1.6B), StableLM 3B. LayerNorm, partial rotary positions, SwiGLU."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False, parallel=hp.keys.flag("use_parallel_residual", False))
