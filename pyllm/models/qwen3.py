"""qwen3: as qwen2 without biases, with an RMSNorm per head on q and k before the rotation."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False, qk_norm="head")
