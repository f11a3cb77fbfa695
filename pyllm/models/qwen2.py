"""qwen2: Qwen 2 and 2.5. Half-split rotary pairs; biases on q, k and v."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False)
