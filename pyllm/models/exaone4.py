"""exaone4: EXAONE 4. Norms after attention and feed-forward only, an RMSNorm per head on q and k.

The 32B has windows in three layers of four, and no rotary positions in the others.
"""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder, rope_table, windows
from .hparams import Hparams

PERIOD = 4


def build(g: Graph, hp: Hparams) -> None:
    table = rope_table(g, hp)
    decoder(
        g,
        hp,
        interleaved=False,
        qk_norm="head",
        layers=[(table if width or not hp.sliding_window else None, width) for width in windows(hp, PERIOD)],
        pre_norms=False,
        post_norms=True,
    )
