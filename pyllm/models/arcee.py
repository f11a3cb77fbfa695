"""arcee: AFM 4.5B. As llama, with a feed-forward network without gate and the square of relu."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=True, act="relu2")
