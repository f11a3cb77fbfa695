"""falcon: Falcon 7B and 40B. LayerNorm, attention and feed-forward in parallel (40B: a norm each), exact GELU."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False, parallel=True, act="gelu_erf")
