"""nemotron: Nemotron 3 and 4, Minitron. LayerNorm, partial rotary positions, the square of relu without gate."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False, act="relu2")
