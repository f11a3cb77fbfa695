"""jais2: Jais 2. LayerNorm, biases, the square of relu without gate."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False, act="relu2")
