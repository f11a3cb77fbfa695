"""deepseek2: DeepSeek V2 and V3 and what builds on them. Multi-head latent attention (DeepSeek-V2, 2024), experts.

Keys and values of a token are one latent vector and a rotated part, which all heads share in the cache: each head's
matrix from latent to keys is applied to its query instead, and the one to values to its result.
"""

from __future__ import annotations

import math

from ..errors import ModelError
from ..graph import PANEL, Graph, Value
from .blocks import linear, mlp, norm, output
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    inv_freq, _ = hp.rope_frequencies()
    table = g.rope_table(inv_freq)
    x = g.embed(g.weight("token_embd.weight", hp.n_vocab, hp.n_embd))
    for layer in range(hp.n_layer):
        x = g.add(x, _attention(g, hp, norm(g, hp, x, f"blk.{layer}.attn_norm"), layer, table))
        x = g.add(x, mlp(g, hp, norm(g, hp, x, f"blk.{layer}.ffn_norm"), layer, normalize=False))
    output(g, hp, x)


def _attention(g: Graph, hp: Hparams, x: Value, layer: int, table: Value) -> Value:
    """[T][n_embd] of normed x."""
    blk, keys, heads = f"blk.{layer}.", hp.keys, hp.n_head
    n_key, n_value = keys.integer("attention.key_length_mla"), keys.integer("attention.value_length_mla")
    latent, n_rot = keys.integer("attention.kv_lora_rank"), hp.n_rot
    n_plain = n_key - n_rot
    if n_plain < 1:
        raise ModelError(f"keys of {n_key} values have no room for {n_rot} rotated ones")
    if g.has(f"{blk}attn_q_a.weight"):
        low = keys.integer("attention.q_lora_rank")
        y = linear(g, x, f"{blk}attn_q_a", low)
        y = g.rms_norm(y, g.vector(f"{blk}attn_q_a_norm.weight", low), hp.norm_eps)
        q = linear(g, y, f"{blk}attn_q_b", heads * n_key)
    else:
        q = linear(g, x, f"{blk}attn_q", heads * n_key)
    plain = g.slice(q, 0, n_plain, f"{blk}q_plain", heads)
    rotated = g.slice(q, n_plain, n_rot, f"{blk}q_rot", heads)
    q = g.concat([_per_head(g, plain, f"{blk}attn_k_b", heads, latent), rotated], f"{blk}q", heads)
    q = g.rope(q, table, heads, latent + n_rot, True, latent)

    kv = linear(g, x, f"{blk}attn_kv_a_mqa", latent + n_rot)
    c = g.slice(kv, 0, latent, f"{blk}latent")
    c = g.rms_norm(c, g.vector(f"{blk}attn_kv_a_norm.weight", latent), hp.norm_eps)
    k = g.concat([c, g.slice(kv, latent, n_rot, f"{blk}k_rot")], f"{blk}k")
    k = g.rope(k, table, 1, latent + n_rot, True, latent)
    # YaRN's temperature: the file has 0.1 * mscale_all_dim
    stretch = 1.0 + hp.keys.real("rope.scaling.yarn_log_multiplier", 1e-9) * math.log(max(1.0, hp.rope_scaling.factor))
    out = g.attention(
        q, k, c, n_heads=heads, n_kv=1, head_dim_k=latent + n_rot, head_dim_v=latent, scale=n_key**-0.5 * stretch**2
    )
    return linear(g, _per_head(g, out, f"{blk}attn_v_b", heads, n_value), f"{blk}attn_output", hp.n_embd)


def _per_head(g: Graph, x: Value, name: str, heads: int, rows: int) -> Value:
    """[T][heads * rows]: each head of x by a matrix of its own."""
    cols = x.cols // heads
    if rows % PANEL == 0:
        return g.linear_heads(x, g.experts(f"{name}.weight", heads, rows, cols), heads)
    weights = g.split(f"{name}.weight", {f"{name}.{h}.weight": rows for h in range(heads)}, cols, stacked=True)
    parts = [g.linear(g.slice(x, h * cols, cols, f"{name}.{h}.in"), w) for h, w in enumerate(weights)]
    while len(parts) > 1:
        parts = [g.concat(parts[i : i + 4], f"{name}.{i}.{len(parts)}") for i in range(0, len(parts), 4)]
    return parts[0]
