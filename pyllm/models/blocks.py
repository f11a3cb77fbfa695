"""Building blocks that architectures share: the decoder with rotary GQA attention and a feed-forward network.

What the file holds decides where it can: biases, fused tensors ([q|k|v], [gate|up]), a gate or none, LayerNorm or
RMSNorm (by the epsilon's key), an untied head. What it does not say is an argument.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..errors import ModelError
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


def windows(hp: Hparams, period: int, *, first: bool = False) -> list[int]:
    """The window of each layer: all have the file's but the last of each `period` (the first), unless it says which."""
    pattern = "attention.sliding_window_pattern"
    if hp.keys.is_array(pattern):
        return [hp.sliding_window if flag else 0 for flag in hp.keys.flags(pattern)[: hp.n_layer]]
    period = hp.keys.integer(pattern, period)
    return [hp.sliding_window if (i + (not first)) % period else 0 for i in range(hp.n_layer)]


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
    """q, k and v of x, from three matrices or from one, held within the bounds that the file may give."""
    values = _qkv(g, hp, x, layer)
    if not hp.keys.has("attention.clamp_kqv"):
        return values
    return [g.clamp(value, hp.keys.real("attention.clamp_kqv")) for value in values]


def _qkv(g: Graph, hp: Hparams, x: Value, layer: int) -> list[Value]:
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
    q_table: Value | None = None,
    window: int = 0,
    chunk: int = 0,
    scale: float = 0.0,
    softcap: float = 0.0,
    sinks: Const | None = None,
) -> Value:
    """[T][n_embd] of normed x [T][n_embd]: q, k, v, rope by `table` (if any), attention, output.

    qk_norm: RMSNorm on q and k before the rotation, per "head" or over "all" heads together, or per head after it
    ("rotated"). q_table: of q, where it has its own. scale: 1/sqrt(head_dim_k) if 0. chunk, softcap, sinks:
    see Graph.attention.
    """
    blk = f"blk.{layer}."
    q, k, v = qkv(g, hp, x, layer)

    def place(x: Value, n: int, name: str, table: Value | None) -> Value:
        heads, dim = (1, n * hp.head_dim_k) if qk_norm == "all" else (n, hp.head_dim_k)
        weight = g.vector(f"{blk}{name}.weight", dim) if qk_norm else None
        if weight and qk_norm != "rotated":
            x = g.head_norm(x, weight, heads, dim, hp.norm_eps)
        if table:
            x = g.rope(x, table, n, hp.head_dim_k, interleaved)
        return g.head_norm(x, weight, heads, dim, hp.norm_eps) if weight and qk_norm == "rotated" else x

    q = place(q, hp.n_head, "attn_q_norm", q_table or table)
    k = place(k, hp.n_head_kv, "attn_k_norm", table)
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
        chunk=chunk,
        softcap=softcap,
        sinks=sinks,
    )
    return linear(g, out, f"{blk}attn_output", hp.n_embd)


def feed_forward(g: Graph, hp: Hparams, x: Value, layer: int, act: str = "silu") -> Value:
    """[T][n_embd] = down(act(gate(x)) * up(x)), or down(act(up(x))) where the file has no gate.

    act: "silu", "gelu" (its tanh form), "gelu_erf" or "relu2" (the square of relu).
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
    elif act == "relu2":
        y = g.relu(up, up)
    elif gate is not None:
        y = g.gelu(gate, up, act == "gelu_erf")
    else:
        y = g.gelu(up, None, act == "gelu_erf")
    return linear(g, y, f"{blk}ffn_down", hp.n_embd)


def router(g: Graph, hp: Hparams, x: Value, layer: int, gating: int, normalize: bool) -> Value:
    """Each token's experts and their weights, by x [T][n_embd]: see Graph.route.

    gating, normalize: what they are where the file does not say."""
    blk, keys = f"blk.{layer}.", hp.keys
    if not hp.n_expert:
        raise ModelError(f"the file has tensors of experts, and {hp.architecture}.expert_count is missing or 0")
    logits = linear(g, x, f"{blk}ffn_gate_inp", hp.n_expert)
    gating = (keys.integer("expert_gating_func", 0, low=0, high=3) or gating + 1) - 1
    normalize = keys.flag("expert_weights_norm", normalize)
    bias = g.optional_vector(f"{blk}exp_probs_b.bias", hp.n_expert)
    scale = keys.real("expert_weights_scale", 1.0)
    return g.route(logits, hp.n_expert_used, gating, normalize, scale, bias, _groups(hp, gating))


def expert_linear(g: Graph, hp: Hparams, x: Value, route: Value, name: str, rows: int, cols: int) -> Value:
    """x by the matrices name_exps.weight [n_expert][rows][cols] (plus name_exps.bias) of each token's experts."""
    weight, bias = g.experts(f"{name}_exps.weight", hp.n_expert, rows, cols), f"{name}_exps.bias"
    biases = g.const(bias, g.flat(bias, hp.n_expert, rows)) if g.has(bias) else None
    return g.linear_experts(x, weight, route, rows, biases)


def moe(
    g: Graph,
    hp: Hparams,
    x: Value,
    layer: int,
    *,
    gating: int = SOFTMAX,
    normalize: bool = True,
    clamp: tuple[float, float] | None = None,
) -> Value:
    """[T][n_embd]: the weighted sum of the SwiGLUs of each token's n_expert_used best experts, and of a shared expert
    where the file has one, through a gate where it has that.

    gating, normalize: see `router`. clamp: (limit, alpha) of Graph.swiglu_clamped, which then takes the place of
    SwiGLU."""
    blk = f"blk.{layer}."
    n_ff = hp.keys.integer("expert_feed_forward_length", hp.n_ff)
    route = router(g, hp, x, layer, gating, normalize)
    gate, up = (expert_linear(g, hp, x, route, f"{blk}ffn_{k}", n_ff, hp.n_embd) for k in ("gate", "up"))
    y = g.swiglu_clamped(gate, up, *clamp) if clamp else g.silu_mul(gate, up)
    y = expert_linear(g, hp, y, route, f"{blk}ffn_down", hp.n_embd, n_ff)
    shared = share = None
    if g.has(f"{blk}ffn_gate_shexp.weight"):
        n_ff = g.rows_of(f"{blk}ffn_gate_shexp.weight")
        act = g.silu_mul(linear(g, x, f"{blk}ffn_gate_shexp", n_ff), linear(g, x, f"{blk}ffn_up_shexp", n_ff))
        shared = linear(g, act, f"{blk}ffn_down_shexp", hp.n_embd)
        if g.has(f"{blk}ffn_gate_inp_shexp.weight"):
            share = g.linear(x, g.row(f"{blk}ffn_gate_inp_shexp.weight", hp.n_embd))
    return g.expert_sum(y, route, shared, share)


def _groups(hp: Hparams, gating: int) -> tuple[int, int, int]:
    """How the file limits the choice of experts to groups: see Graph.route."""
    n, used = (hp.keys.integer(f"expert_group_{key}", 0, low=0) for key in ("count", "used_count"))
    if n < 2 or used == n:
        return 0, 0, 0
    size = hp.n_expert // n
    if hp.n_expert % n or not 1 <= used < n or hp.n_expert_used > used * size:
        raise ModelError(f"{used} of {n} groups of {hp.n_expert} experts cannot give {hp.n_expert_used} of them")
    return n, used, 1 if gating == SOFTMAX else min(2, size)  # DeepSeek-V2 looks at the best, others at two


def mlp(
    g: Graph, hp: Hparams, x: Value, layer: int, act: str = "silu", gating: int = SOFTMAX, normalize: bool = True
) -> Value:
    """`moe` in layers that have a router, else `feed_forward`."""
    if g.has(f"blk.{layer}.ffn_gate_inp.weight"):
        return moe(g, hp, x, layer, gating=gating, normalize=normalize)
    return feed_forward(g, hp, x, layer, act)


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
    expert_gating: int = SOFTMAX,
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
    expert_gating, expert_norm: gating and normalize of `moe`.
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
            names = [f"{blk}post_attention_norm", f"{blk}ffn_norm"]  # of the second norm before
            name = names[post_norms or not g.has(f"{names[0]}.weight")]
            y = norm(g, hp, x, name) if pre_norms else x
            x = add(x, mlp(g, hp, y, layer, act, expert_gating, expert_norm), f"{blk}post_ffw_norm")
    output(g, hp, x, scale=logit_scale, softcap=logit_softcap)


def output(g: Graph, hp: Hparams, x: Value, scale: float = 1.0, softcap: float = 0.0) -> None:
    """The last norm and the head: output.weight, or the embedding where the file ties them."""
    g.output(
        x,
        g.vector("output_norm.weight", hp.n_embd),
        hp.norm_eps,
        head(g, hp),
        layer_norm=hp.layer_norm,
        bias=g.optional_vector("output_norm.bias", hp.n_embd) if hp.layer_norm else None,
        head_bias=g.optional_vector("output.bias", hp.n_vocab),
        scale=scale,
        softcap=softcap,
    )


def head(g: Graph, hp: Hparams) -> Weight:
    """output.weight, or the embedding where the file ties them."""
    name = "output.weight" if g.has("output.weight") else "token_embd.weight"
    return g.weight(name, hp.n_vocab, hp.n_embd)
