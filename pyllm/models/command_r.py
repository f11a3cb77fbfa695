"""command-r: Command R, Aya. As cohere2, with rotary positions and no window in all layers."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=True, parallel=True, logit_scale=hp.keys.real("logit_scale", 1.0))
