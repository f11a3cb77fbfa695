"""mellum: Mellum 2. An RMSNorm per head on q and k, experts, windows in three layers of four, which rotate unscaled."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder, plain_rope_table, rope_table, windows
from .hparams import Hparams

PERIOD = 4


def build(g: Graph, hp: Hparams) -> None:
    whole = local = rope_table(g, hp)
    if hp.sliding_window:
        local = plain_rope_table(g, hp, hp.keys.real("rope.freq_base_swa", hp.rope_theta), "rope_swa")
    layers = [(local if width else whole, width) for width in windows(hp, PERIOD)]
    decoder(g, hp, interleaved=False, qk_norm="head", layers=layers)
