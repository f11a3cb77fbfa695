"""gpt2: learned positions, LayerNorm, biases everywhere, a feed-forward network without gate (tanh GELU), tied head."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False, layers=[(None, 0)] * hp.n_layer, positions=True, act="gelu")
