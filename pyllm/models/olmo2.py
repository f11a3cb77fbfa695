"""olmo2: OLMo 2 and 3. Norms after attention and feed-forward only, and an RMSNorm over all heads of q and k together.

OLMo 3 has windows in three layers of four, which rotate without scaling.
"""

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
    decoder(g, hp, interleaved=False, qk_norm="all", layers=layers, pre_norms=False, post_norms=True)
