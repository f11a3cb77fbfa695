"""chatglm: ChatGLM 3, GLM-4 9B. Fused projections, partial interleaved rotary positions."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=True)
