"""ernie4_5-moe: ERNIE 4.5 with experts, which a bias helps to choose."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=True)
