"""Building blocks that architectures share: the decoder with rotary GQA attention and a feed-forward network.

What the file holds decides where it can: biases, fused tensors ([q|k|v], [gate|up]), a gate or none, LayerNorm or
RMSNorm (by the epsilon's key), an untied head. What it does not say is an argument.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..graph import SOFTMAX, Const, Graph, Value, Weight
from .hparams import Hparams, RopeScaling


def rope_table(g: Graph, hp: Hparams) -> Value:
    """The rotary table of the step, with the file's rope_freqs where it has them."""
    divisors = g.optional_vector("rope_freqs.weight", hp.n_rot // 2)
    return g.rope_table(*hp.rope_frequencies(divisors.data if divisors else None))


def plain_rope_table(g: Graph, hp: Hparams, theta: float, name: str) -> Value:
    """A second rotary table, of another base and without scaling."""
    plain = dataclasses.replace(hp, rope_theta=theta, rope_scaling=RopeScaling())
    return g.rope_table(*plain.rope_frequencies(), name=name)


def norm(g: Graph, hp: Hparams, x: Value, name: str) -> Value:
    """x normed by tensors name.weight and, for LayerNorm where there is one, name.bias."""
    weight = g.vector(f"{name}.weight", hp.n_embd)
    if not hp.layer_norm:
        return g.rms_norm(x, weight, hp.norm_eps)
    return g.layer_norm(x, weight, g.optional_vector(f"{name}.bias", hp.n_embd), hp.norm_eps)


def linear(g: Graph, x: Value, name: str, rows: int) -> Value:
    """x by the matrix name.weight [rows][x.cols], plus name.bias where the file has it."""
    return g.linear(x, g.weight(f"{name}.weight", rows, x.cols), g.optional_vector(f"{name}.bias", rows))


def qkv(g: Graph, hp: Hparams, x: Value, layer: int) -> list[Value]:
    """q, k and v of x, from three matrices or from one."""
    blk = f"blk.{layer}."
    names = [f"{blk}attn_q", f"{blk}attn_k", f"{blk}attn_v"]
    rows = [hp.n_head * hp.head_dim_k, hp.n_head_kv * hp.head_dim_k, hp.n_head_kv * hp.head_dim_v]
    fused = f"{blk}attn_qkv"
    if not g.has(f"{fused}.weight"):
        return [linear(g, x, name, n) for name, n in zip(names, rows, strict=True)]
    weights = g.split(f"{fused}.weight", {f"{n}.weight": r for n, r in zip(names, rows, strict=True)}, x.cols)
    if not g.has(f"{fused}.bias"):
        return [g.linear(x, w) for w in weights]
    biases = g.split_vector(f"{fused}.bias", {f"{n}.bias": r for n, r in zip(names, rows, strict=True)})
    return [g.linear(x, w, b) for w, b in zip(weights, biases, strict=True)]


def attention(
    g: Graph,
    hp: Hparams,
    x: Value,
    layer: int,
    table: Value | None,
    *,
    interleaved: bool,
    qk_norm: str = "",
    window: int = 0,
    scale: float = 0.0,
    softcap: float = 0.0,
    sinks: Const | None = None,
) -> Value:
    """[T][n_embd] of normed x [T][n_embd]: q, k, v, rope by `table` (if any), attention, output.

    qk_norm: RMSNorm on q and k before the rotation, per "head" or over "all" heads together. scale: 1/sqrt(head_dim_k)
    if 0. softcap, sinks: see Graph.attention.
    """
    blk = f"blk.{layer}."
    q, k, v = qkv(g, hp, x, layer)
    if qk_norm:
        for n, value, name in ((hp.n_head, q, "attn_q_norm"), (hp.n_head_kv, k, "attn_k_norm")):
            heads, dim = (n, hp.head_dim_k) if qk_norm == "head" else (1, n * hp.head_dim_k)
            normed = g.head_norm(value, g.vector(f"{blk}{name}.weight", dim), heads, dim, hp.norm_eps)
            q, k = (normed, k) if value is q else (q, normed)
    if table:
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
        scale=scale or hp.head_dim_k**-0.5,
        window=window,
        softcap=softcap,
        sinks=sinks,
    )
    return linear(g, out, f"{blk}attn_output", hp.n_embd)


def feed_forward(g: Graph, hp: Hparams, x: Value, layer: int, act: str = "silu") -> Value:
    """[T][n_embd] = down(act(gate(x)) * up(x)), or down(act(up(x))) where the file has no gate.

    act: "silu", "gelu" (its tanh form) or "gelu_erf".
    """
    blk = f"blk.{layer}."
    gate: Value | None = None
    if g.has(f"{blk}ffn_gate.weight"):
        gate, up = linear(g, x, f"{blk}ffn_gate", hp.n_ff), linear(g, x, f"{blk}ffn_up", hp.n_ff)
    elif act == "silu":  # one matrix [gate|up]
        parts = {f"{blk}ffn_gate.weight": hp.n_ff, f"{blk}ffn_up.weight": hp.n_ff}
        gate, up = (g.linear(x, w) for w in g.split(f"{blk}ffn_up.weight", parts, x.cols))
    else:
        up = linear(g, x, f"{blk}ffn_up", hp.n_ff)
    if act == "silu":
        assert gate is not None
        y = g.silu_mul(gate, up)
    elif gate is not None:
        y = g.gelu(gate, up, act == "gelu_erf")
    else:
        y = g.gelu(up, None, act == "gelu_erf")
    return linear(g, y, f"{blk}ffn_down", hp.n_embd)


def moe(
    g: Graph,
    hp: Hparams,
    x: Value,
    layer: int,
    *,
    gating: int = SOFTMAX,
    normalize: bool = True,
    scale: float = 1.0,
    clamp: tuple[float, float] | None = None,
) -> Value:
    """[T][n_embd]: the weighted sum of the SwiGLUs of each token's n_expert_used best experts, and of a shared expert
    where the file has one, through a gate where it has that.

    gating, normalize, scale: see Graph.route. clamp: (limit, alpha) of Graph.swiglu_clamped, which then takes
    the place of SwiGLU."""
    blk = f"blk.{layer}."
    n_ff = hp.keys.integer("expert_feed_forward_length", hp.n_ff)
    logits = linear(g, x, f"{blk}ffn_gate_inp", hp.n_expert)
    route = g.route(
        logits, hp.n_expert_used, gating, normalize, scale, g.optional_vector(f"{blk}exp_probs_b.bias", hp.n_expert)
    )

    def experts(name: str, x: Value, rows: int, cols: int) -> Value:
        weight, bias = g.experts(f"{blk}{name}_exps.weight", hp.n_expert, rows, cols), f"{blk}{name}_exps.bias"
        biases = g.const(bias, g.flat(bias, hp.n_expert, rows)) if g.has(bias) else None
        return g.linear_experts(x, weight, route, rows, biases)

    gate, up = experts("ffn_gate", x, n_ff, hp.n_embd), experts("ffn_up", x, n_ff, hp.n_embd)
    y = g.swiglu_clamped(gate, up, *clamp) if clamp else g.silu_mul(gate, up)
    y = experts("ffn_down", y, hp.n_embd, n_ff)
    shared = share = None
    if g.has(f"{blk}ffn_gate_shexp.weight"):
        n_shared = n_ff * hp.keys.integer("expert_shared_count", 0, low=0) or hp.n_ff
        n_ff = hp.keys.integer("expert_shared_feed_forward_length", n_shared)
        act = g.silu_mul(linear(g, x, f"{blk}ffn_gate_shexp", n_ff), linear(g, x, f"{blk}ffn_up_shexp", n_ff))
        shared = linear(g, act, f"{blk}ffn_down_shexp", hp.n_embd)
        if g.has(f"{blk}ffn_gate_inp_shexp.weight"):
            share = g.linear(x, g.row(f"{blk}ffn_gate_inp_shexp.weight", hp.n_embd))
    return g.expert_sum(y, route, shared, share)


def decoder(
    g: Graph,
    hp: Hparams,
    *,
    interleaved: bool,
    qk_norm: str = "",
    window: int = 0,
    layers: Sequence[tuple[Value | None, int]] | None = None,
    pre_norms: bool = True,
    post_norms: bool = False,
    parallel: bool = False,
    positions: bool = False,
    act: str = "silu",
    expert_norm: bool = True,
    embed_scale: float = 1.0,
    residual_scale: float = 1.0,
    attn_scale: float = 0.0,
    attn_softcap: float = 0.0,
    logit_scale: float = 1.0,
    logit_softcap: float = 0.0,
) -> None:
    """The whole model: embedding, n_layer blocks of attention and feed-forward, norm and head.

    interleaved: rotary pairs (2i, 2i+1), else halves. layers: (rotary table or None, window or 0) of each layer, where
    they differ. pre_norms, post_norms: norms before and after attention and feed-forward. parallel: both read the same
    x, by norms of their own where the file has them. positions: learned ones are added to the embedding.
    expert_norm: the weights of a token's experts are divided by their sum.
    residual_scale: of what each adds to the residual stream. Others: see `attention`, `feed_forward` and Graph.output.
    """

    def add(x: Value, y: Value, post: str) -> Value:
        y = norm(g, hp, y, post) if post_norms else y
        return g.add(x, y if residual_scale == 1.0 else g.scale(y, residual_scale))

    layers = layers or [(rope_table(g, hp), window)] * hp.n_layer
    x = g.embed(g.weight("token_embd.weight", hp.n_vocab, hp.n_embd), embed_scale)
    if positions:
        x = g.add(x, g.embed_positions(g.weight("position_embd.weight", hp.n_ctx_train, hp.n_embd)))
    for layer, (table, width) in enumerate(layers):
        blk = f"blk.{layer}."

        def attend(y: Value, layer: int = layer, table: Value | None = table, width: int = width) -> Value:
            return attention(
                g,
                hp,
                y,
                layer,
                table,
                interleaved=interleaved,
                qk_norm=qk_norm,
                window=width,
                scale=attn_scale,
                softcap=attn_softcap,
            )

        y = norm(g, hp, x, f"{blk}attn_norm") if pre_norms else x
        if parallel:
            z = norm(g, hp, x, f"{blk}ffn_norm") if g.has(f"{blk}ffn_norm.weight") else y
            y = norm(g, hp, x, f"{blk}attn_norm_2") if g.has(f"{blk}attn_norm_2.weight") else y
            x = g.add(g.add(x, attend(y)), feed_forward(g, hp, z, layer, act))
        else:
            x = add(x, attend(y), f"{blk}post_attention_norm")
            y = norm(g, hp, x, f"{blk}ffn_norm") if pre_norms else x
            experts = g.has(f"{blk}ffn_gate_inp.weight")
            y = moe(g, hp, y, layer, normalize=expert_norm) if experts else feed_forward(g, hp, y, layer, act)
            x = add(x, y, f"{blk}post_ffw_norm")
    output(g, hp, x, scale=logit_scale, softcap=logit_softcap)


def output(g: Graph, hp: Hparams, x: Value, scale: float = 1.0, softcap: float = 0.0) -> None:
    """The last norm and the head: output.weight, or the embedding where the file ties them."""
    weight = g.vector("output_norm.weight", hp.n_embd)
    bias = g.optional_vector("output_norm.bias", hp.n_embd) if hp.layer_norm else None
    g.output(x, weight, hp.norm_eps, head(g, hp), layer_norm=hp.layer_norm, bias=bias, scale=scale, softcap=softcap)


def head(g: Graph, hp: Hparams) -> Weight:
    """output.weight, or the embedding where the file ties them."""
    name = "output.weight" if g.has("output.weight") else "token_embd.weight"
    return g.weight(name, hp.n_vocab, hp.n_embd)
