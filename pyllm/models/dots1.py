"""dots1: dots.llm1. An RMSNorm per head on q and k, experts after the first layers."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False, qk_norm="head", expert_norm=False)
