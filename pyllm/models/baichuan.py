"""baichuan: Baichuan 1 and 2, 7B. As llama."""

from __future__ import annotations

from ..errors import ModelError
from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams

LAYERS_13B = 40


def build(g: Graph, hp: Hparams) -> None:
    if hp.n_layer == LAYERS_13B:
        raise ModelError("Baichuan 13B has linear biases in its attention (ALiBi), which this version does not run")
    decoder(g, hp, interleaved=True)
