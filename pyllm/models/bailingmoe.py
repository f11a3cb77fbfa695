"""bailingmoe: Ling, Ring (1). As llama, with experts and shared ones."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=True, expert_norm=False)
