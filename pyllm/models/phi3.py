"""phi3: Phi 3 to 4, mini and medium. Fused q, k, v and gate, up; partial rotary positions where the file says so.

Models for long contexts (LongRoPE) have two sets of factors that divide the rotary frequencies: one for sequences up to
the original context, one for longer ones.
"""

from __future__ import annotations

from ..graph import Graph, Value
from .blocks import decoder, rope_table
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False, layers=[(long_rope_table(g, hp), hp.sliding_window)] * hp.n_layer)


def long_rope_table(g: Graph, hp: Hparams) -> Value:
    """The rotary table, with the file's factors for short and long sequences where it has them."""
    if g.has("rope_factors_long.weight"):
        short, long = (g.vector(f"rope_factors_{kind}.weight", hp.n_rot // 2).data for kind in ("short", "long"))
        inv_freq, scale = hp.rope_frequencies(short)
        original = hp.rope_scaling.original_context_length or hp.n_ctx_train
        inv_freq_long, _ = hp.rope_frequencies(long)
        return g.rope_table(inv_freq, scale, inv_freq_long=inv_freq_long, long_after=original)
    return rope_table(g, hp)
