"""glm4: GLM-4 0414. Fused gate and up, partial interleaved rotary positions, norms before and after."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=True, post_norms=True)
