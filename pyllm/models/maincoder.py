"""maincoder: Maincoder 1B. As llama, with an RMSNorm per head on q and k, after the rotation."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=True, qk_norm="rotated")
