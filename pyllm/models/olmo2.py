"""olmo2: norms after attention and feed-forward only, and an RMSNorm over all heads of q and k together."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False, qk_norm="all", pre_norms=False, post_norms=True)
