"""mistral3: Ministral 3, Mistral Small 3.x. As llama; queries grow with the position where the file says so."""

from __future__ import annotations

import math

from ..errors import ModelError
from ..graph import Graph
from .blocks import attention, mlp, norm, output
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    keys, scaling = hp.keys, hp.rope_scaling
    divisors = g.optional_vector("rope_freqs.weight", hp.n_rot // 2)
    inv_freq, scale = hp.rope_frequencies(divisors.data if divisors else None)
    if keys.has("rope.scaling.yarn_log_multiplier") and scaling.type == "yarn":
        scale /= 0.1 * keys.real("rope.scaling.yarn_log_multiplier") * math.log(max(1.0, scaling.factor)) + 1.0
    table = q_table = g.rope_table(inv_freq, scale)
    if keys.has("attention.temperature_scale"):
        if not scaling.original_context_length or hp.n_rot != hp.head_dim_k:
            raise ModelError("a temperature of attention needs an original context length and whole heads rotated")
        growth = keys.real("attention.temperature_scale"), scaling.original_context_length, 0
        q_table = g.rope_table(inv_freq, scale, "rope_q", growth=growth)
    x = g.embed(g.weight("token_embd.weight", hp.n_vocab, hp.n_embd))
    for layer in range(hp.n_layer):
        y = norm(g, hp, x, f"blk.{layer}.attn_norm")
        x = g.add(x, attention(g, hp, y, layer, table, interleaved=True, q_table=q_table))
        x = g.add(x, mlp(g, hp, norm(g, hp, x, f"blk.{layer}.ffn_norm"), layer))
    output(g, hp, x)
