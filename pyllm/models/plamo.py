"""plamo: PLaMo 13B. Attention and feed-forward in parallel."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False, parallel=True)
