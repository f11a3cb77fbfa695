"""phi3: Phi 3 to 4, mini and medium. Fused q, k, v and gate, up; partial rotary positions where the file says so.

Models for long contexts (LongRoPE) have two sets of factors that divide the rotary frequencies: one for sequences up to
the original context, one for longer ones.
"""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder, rope_table
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    if g.has("rope_factors_long.weight"):
        short, long = (g.vector(f"rope_factors_{kind}.weight", hp.n_rot // 2).data for kind in ("short", "long"))
        inv_freq, scale = hp.rope_frequencies(short)
        original = hp.rope_scaling.original_context_length or hp.n_ctx_train
        inv_freq_long, _ = hp.rope_frequencies(long)
        table = g.rope_table(inv_freq, scale, inv_freq_long=inv_freq_long, long_after=original)
    else:
        table = rope_table(g, hp)
    decoder(g, hp, interleaved=False, layers=[(table, hp.sliding_window)] * hp.n_layer)
