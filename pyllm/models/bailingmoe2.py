"""bailingmoe2: Ling and Ring 2. Fused projections, an RMSNorm per head on q and k, experts chosen by groups."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False, qk_norm="head", expert_norm=False)
