"""deepseek2: DeepSeek V2 and V3 and what builds on them. Multi-head latent attention (DeepSeek-V2, 2024), experts.

Keys and values of a token are one latent vector and a rotated part, which all heads share in the cache: each head's
matrix from latent to keys is applied to its query instead, and the one to values to its result. Files from before
2025-04 have both matrices in one that only makes keys and values for the cache.
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
    # YaRN's temperature: the file has 0.1 * mscale_all_dim
    stretch = 1.0 + hp.keys.real("rope.scaling.yarn_log_multiplier", 1e-9) * math.log(max(1.0, hp.rope_scaling.factor))
    x = g.embed(g.weight("token_embd.weight", hp.n_vocab, hp.n_embd))
    for layer in range(hp.n_layer):
        y = norm(g, hp, x, f"blk.{layer}.attn_norm")
        if g.has(f"blk.{layer}.attn_kv_b.weight"):
            y = attention_of_expanded(g, hp, y, layer, table, interleaved=True, scale=hp.head_dim_k**-0.5 * stretch**2)
        else:
            y = _attention(g, hp, y, layer, table, stretch)
        x = g.add(x, y)
        x = g.add(x, mlp(g, hp, norm(g, hp, x, f"blk.{layer}.ffn_norm"), layer, normalize=False))
    output(g, hp, x)


def _attention(g: Graph, hp: Hparams, x: Value, layer: int, table: Value, stretch: float) -> Value:
    """[T][n_embd] of normed x."""
    blk, keys, heads = f"blk.{layer}.", hp.keys, hp.n_head
    n_key, n_value = keys.integer("attention.key_length_mla"), keys.integer("attention.value_length_mla")
    latent, n_rot = keys.integer("attention.kv_lora_rank"), hp.n_rot
    n_plain = n_key - n_rot
    if n_plain < 1:
        raise ModelError(f"keys of {n_key} values have no room for {n_rot} rotated ones")
    q = _queries(g, hp, x, blk, n_key)
    plain = g.slice(q, 0, n_plain, f"{blk}q_plain", heads)
    rotated = g.slice(q, n_plain, n_rot, f"{blk}q_rot", heads)
    q = g.concat([_per_head(g, plain, f"{blk}attn_k_b", heads, latent), rotated], f"{blk}q", heads)
    q = g.rope(q, table, heads, latent + n_rot, True, latent)

    c, k_rot = _latent(g, hp, x, blk, latent)
    k = g.concat([c, k_rot], f"{blk}k")
    k = g.rope(k, table, 1, latent + n_rot, True, latent)
    out = g.attention(
        q, k, c, n_heads=heads, n_kv=1, head_dim_k=latent + n_rot, head_dim_v=latent, scale=n_key**-0.5 * stretch**2
    )
    return linear(g, _per_head(g, out, f"{blk}attn_v_b", heads, n_value), f"{blk}attn_output", hp.n_embd)


def attention_of_expanded(
    g: Graph, hp: Hparams, x: Value, layer: int, table: Value, *, interleaved: bool, scale: float
) -> Value:
    """[T][n_embd] of normed x: keys and values of all heads are made of the latent vector, and cached."""
    blk, heads, n_rot = f"blk.{layer}.", hp.n_head, hp.n_rot
    n_plain, n_value = hp.head_dim_k - n_rot, hp.head_dim_v
    if n_plain < 1:
        raise ModelError(f"keys of {hp.head_dim_k} values have no room for {n_rot} rotated ones")
    q = g.rope(_queries(g, hp, x, blk, hp.head_dim_k), table, heads, hp.head_dim_k, interleaved, n_plain)
    c, k_rot = _latent(g, hp, x, blk, hp.keys.integer("attention.kv_lora_rank"))
    k_rot = _repeat(g, g.rope(k_rot, table, 1, n_rot, interleaved), heads, f"{blk}k_rot")
    kv = linear(g, c, f"{blk}attn_kv_b", heads * (n_plain + n_value))
    k = g.concat([g.slice(kv, 0, n_plain, f"{blk}k_plain", heads), k_rot], f"{blk}k", heads)
    v = g.slice(kv, n_plain, n_value, f"{blk}v", heads)
    out = g.attention(
        q, k, v, n_heads=heads, n_kv=heads, head_dim_k=hp.head_dim_k, head_dim_v=n_value, scale=scale
    )  # fmt: skip
    return linear(g, out, f"{blk}attn_output", hp.n_embd)


def _queries(g: Graph, hp: Hparams, x: Value, blk: str, n_key: int) -> Value:
    """[T][n_head * n_key], by way of fewer values where the file has it so."""
    if not g.has(f"{blk}attn_q_a.weight"):
        return linear(g, x, f"{blk}attn_q", hp.n_head * n_key)
    low = hp.keys.integer("attention.q_lora_rank")
    y = linear(g, x, f"{blk}attn_q_a", low)
    y = g.rms_norm(y, g.vector(f"{blk}attn_q_a_norm.weight", low), hp.norm_eps)
    return linear(g, y, f"{blk}attn_q_b", hp.n_head * n_key)


def _latent(g: Graph, hp: Hparams, x: Value, blk: str, latent: int) -> tuple[Value, Value]:
    """The normed latent vector [T][latent], and what is to be rotated of the keys [T][n_rot]."""
    kv = linear(g, x, f"{blk}attn_kv_a_mqa", latent + hp.n_rot)
    c = g.slice(kv, 0, latent, f"{blk}latent")
    c = g.rms_norm(c, g.vector(f"{blk}attn_kv_a_norm.weight", latent), hp.norm_eps)
    return c, g.slice(kv, latent, hp.n_rot, f"{blk}k_rot")


def _repeat(g: Graph, x: Value, n: int, name: str) -> Value:
    """[T][n * x.cols]: x n times side by side."""
    parts: list[Value] = []
    while True:
        parts += [x] * (n % 4)
        n //= 4
        if not n:
            return _side_by_side(g, parts, name)
        x = g.concat([x] * 4, f"{name}.4.{n}")


def _side_by_side(g: Graph, parts: list[Value], name: str) -> Value:
    while len(parts) > 1:
        parts = [g.concat(parts[i : i + 4], f"{name}.{i}.{len(parts)}") for i in range(0, len(parts), 4)]
    return parts[0]


def _per_head(g: Graph, x: Value, name: str, heads: int, rows: int) -> Value:
    """[T][heads * rows]: each head of x by a matrix of its own."""
    cols = x.cols // heads
    if rows % PANEL == 0:
        return g.linear_heads(x, g.experts(f"{name}.weight", heads, rows, cols), heads)
    weights = g.split(f"{name}.weight", {f"{name}.{h}.weight": rows for h in range(heads)}, cols, stacked=True)
    parts = [g.linear(g.slice(x, h * cols, cols, f"{name}.{h}.in"), w) for h, w in enumerate(weights)]
    return _side_by_side(g, parts, name)
