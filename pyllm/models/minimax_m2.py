"""minimax-m2: MiniMax M2. An RMSNorm over all heads of q and k together, partial rotary positions, experts."""

from __future__ import annotations

from ..graph import SIGMOID, Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False, qk_norm="all", expert_gating=SIGMOID)
