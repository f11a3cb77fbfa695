"""Building blocks that several architectures share: the pre-norm decoder with rotary GQA attention and SwiGLU."""

from __future__ import annotations

from ..graph import Graph, Value, Weight
from .hparams import Hparams


def rope_table(g: Graph, hp: Hparams) -> Value:
    """The rotary table of the step, with the file's rope_freqs where it has them."""
    divisors = g.optional_vector("rope_freqs.weight", hp.n_rot // 2)
    return g.rope_table(*hp.rope_frequencies(divisors.data if divisors else None))


def attention(
    g: Graph,
    hp: Hparams,
    x: Value,
    layer: int,
    table: Value,
    *,
    interleaved: bool,
    qk_norm: bool = False,
    window: int = 0,
) -> Value:
    """[T][n_embd] of normed x [T][n_embd]: QKV (with biases where the file has them), rope, attention, output."""
    blk = f"blk.{layer}."
    n_q, n_k, n_v = hp.n_head * hp.head_dim_k, hp.n_head_kv * hp.head_dim_k, hp.n_head_kv * hp.head_dim_v

    def project(name: str, rows: int) -> Value:
        weight = g.weight(f"{blk}{name}.weight", rows, hp.n_embd)
        return g.linear(x, weight, g.optional_vector(f"{blk}{name}.bias", rows))

    q, k, v = project("attn_q", n_q), project("attn_k", n_k), project("attn_v", n_v)
    if qk_norm:
        q = g.head_norm(q, g.vector(f"{blk}attn_q_norm.weight", hp.head_dim_k), hp.n_head, hp.head_dim_k, hp.rms_eps)
        k = g.head_norm(k, g.vector(f"{blk}attn_k_norm.weight", hp.head_dim_k), hp.n_head_kv, hp.head_dim_k, hp.rms_eps)
    q = g.rope(q, table, hp.n_head, hp.head_dim_k, interleaved)
    k = g.rope(k, table, hp.n_head_kv, hp.head_dim_k, interleaved)
    out = g.attention(
        q,
        k,
        v,
        n_heads=hp.n_head,
        n_kv=hp.n_head_kv,
        head_dim_k=hp.head_dim_k,
        head_dim_v=hp.head_dim_v,
        scale=hp.head_dim_k**-0.5,
        window=window,
    )
    weight = g.weight(f"{blk}attn_output.weight", hp.n_embd, hp.n_head * hp.head_dim_v)
    return g.linear(out, weight, g.optional_vector(f"{blk}attn_output.bias", hp.n_embd))


def swiglu(g: Graph, hp: Hparams, x: Value, layer: int) -> Value:
    """[T][n_embd] = down(silu(gate(x)) * up(x))."""
    blk = f"blk.{layer}."
    gate = g.linear(x, g.weight(f"{blk}ffn_gate.weight", hp.n_ff, hp.n_embd))
    up = g.linear(x, g.weight(f"{blk}ffn_up.weight", hp.n_ff, hp.n_embd))
    return g.linear(g.silu_mul(gate, up), g.weight(f"{blk}ffn_down.weight", hp.n_embd, hp.n_ff))


def decoder(g: Graph, hp: Hparams, *, interleaved: bool, qk_norm: bool = False, window: int = 0) -> None:
    """The whole model: embedding, n_layer pre-norm blocks, norm, head (tied to the embedding if the file has none)."""
    table = rope_table(g, hp)
    x = g.embed(g.weight("token_embd.weight", hp.n_vocab, hp.n_embd))
    for layer in range(hp.n_layer):
        normed = g.rms_norm(x, g.vector(f"blk.{layer}.attn_norm.weight", hp.n_embd), hp.rms_eps)
        x = g.add(x, attention(g, hp, normed, layer, table, interleaved=interleaved, qk_norm=qk_norm, window=window))
        normed = g.rms_norm(x, g.vector(f"blk.{layer}.ffn_norm.weight", hp.n_embd), hp.rms_eps)
        x = g.add(x, swiglu(g, hp, normed, layer))
    g.output(x, g.vector("output_norm.weight", hp.n_embd), hp.rms_eps, head(g, hp))


def head(g: Graph, hp: Hparams) -> Weight:
    """output.weight, or the embedding where the file ties them."""
    name = "output.weight" if g.has("output.weight") else "token_embd.weight"
    return g.weight(name, hp.n_vocab, hp.n_embd)
