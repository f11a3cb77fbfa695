"""exaone-moe: K-EXAONE. An RMSNorm per head on q and k, windows in three layers of four, experts.

Layers that see everything have no rotary positions.
"""

from __future__ import annotations

from ..graph import SIGMOID, Graph
from .blocks import decoder, rope_table, windows
from .hparams import Hparams

PERIOD = 4


def build(g: Graph, hp: Hparams) -> None:
    table = rope_table(g, hp)
    layers = [(table if width else None, width) for width in windows(hp, PERIOD)]
    decoder(
        g, hp, interleaved=False, qk_norm="head", layers=layers, expert_gating=SIGMOID, expert_norm=False
    )  # fmt: skip
