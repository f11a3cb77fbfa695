"""olmoe: OLMoE. An RMSNorm over all heads of q and k together, experts whose weights are not normalized."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False, qk_norm="all", expert_norm=False)
