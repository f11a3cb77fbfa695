"""smollm3: as llama, without rotary positions in every fourth layer (NoPE)."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder, rope_table
from .hparams import Hparams

NO_ROPE_EVERY = 4


def build(g: Graph, hp: Hparams) -> None:
    table = rope_table(g, hp)
    layers = [(table if (i + 1) % NO_ROPE_EVERY else None, hp.sliding_window) for i in range(hp.n_layer)]
    decoder(g, hp, interleaved=True, layers=layers)
