"""gemma4: Gemma 4, text.

As gemma3n without AltUp, LAuReL and sparsity: per-layer embeddings where the file has them, last layers that attend to
keys and values of earlier ones, normed values, unscaled scores. Layers with windows have heads of their own size and
rotate all of each; the others rotate a part of theirs. Some have no values of their own, which are the keys then.
Experts, where there are any, work beside the feed-forward network.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ..errors import ModelError
from ..graph import SOFTMAX, Cache, Graph, Value
from .blocks import expert_linear, linear, norm, output, plain_rope_table, rope_table
from .gemma3n import layer_inputs
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    keys, d = hp.keys, hp.n_embd
    n_own = hp.n_layer - keys.integer("attention.shared_kv_layers", 0, low=0, high=hp.n_layer - 1)
    windowed = keys.flags("attention.sliding_window_pattern")
    n_kv, widths = keys.per_layer("attention.head_count_kv"), keys.per_layer("feed_forward_length")
    size = keys.integer("attention.key_length_swa", hp.head_dim_k, high=4096)
    local = dataclasses.replace(
        hp, head_dim_k=size, n_rot=keys.integer("rope.dimension_count_swa", size, high=size),
        rope_theta=keys.real("rope.freq_base_swa", 10000.0),
    )  # fmt: skip
    if local.n_rot % 2 or not hp.sliding_window:
        raise ModelError("the file's windows or what it rotates of their heads are of no size that can be")
    tables = {False: rope_table(g, hp), True: plain_rope_table(g, local, local.rope_theta, "rope_swa")}
    caches: dict[bool, Cache] = {}

    x = g.embed(g.weight("token_embd.weight", hp.n_vocab, d), d**0.5)
    inputs, n_input = None, keys.integer("embedding_length_per_layer_input", 0, low=0)
    if n_input:
        inputs, n_input = layer_inputs(g, hp, x)
    for layer in range(hp.n_layer):
        blk, kind, own = f"blk.{layer}.", windowed[layer], layer < n_own
        of_kind = dataclasses.replace(
            local if kind else hp, n_head_kv=n_kv[layer], sliding_window=hp.sliding_window * kind
        )
        y = norm(g, hp, x, f"{blk}attn_norm")
        y = _attention(g, of_kind, y, layer, tables[kind], None if own else caches.get(kind), own)
        if own:
            caches[kind] = g.caches[-1]
        x = g.add(x, norm(g, hp, y, f"{blk}post_attention_norm"))

        y = norm(g, hp, x, f"{blk}ffn_norm")
        gate, up = (linear(g, y, f"{blk}ffn_{k}", widths[layer]) for k in ("gate", "up"))
        y = linear(g, g.gelu(gate, up), f"{blk}ffn_down", d)
        if g.has(f"{blk}ffn_gate_inp.weight"):
            y = g.add(norm(g, hp, y, f"{blk}post_ffw_norm_1"), _experts(g, hp, x, layer))
        x = g.add(x, norm(g, hp, y, f"{blk}post_ffw_norm"))

        if inputs is not None:
            own_input = g.slice(inputs, layer * n_input, n_input, f"{blk}input")
            y = linear(g, g.gelu(linear(g, x, f"{blk}inp_gate", n_input), own_input), f"{blk}proj", d)
            x = g.add(x, norm(g, hp, y, f"{blk}post_norm"))
        if g.has(f"{blk}layer_output_scale.weight"):
            x = g.scale(x, float(g.flat(f"{blk}layer_output_scale.weight", 1)[0]))
    output(g, hp, x, softcap=keys.real("final_logit_softcapping", 30.0))


def _attention(g: Graph, hp: Hparams, x: Value, layer: int, table: Value, cache: Cache | None, own: bool) -> Value:
    """[T][n_embd] of normed x, by keys and values of its own, or by those in the cache of an earlier layer."""
    blk, dim, n_kv = f"blk.{layer}.", hp.head_dim_k, hp.n_head_kv
    if hp.n_head % n_kv:
        raise ModelError(f"{hp.n_head} attention heads cannot share {n_kv} KV heads evenly")
    q = g.head_norm(
        linear(g, x, f"{blk}attn_q", hp.n_head * dim),
        g.vector(f"{blk}attn_q_norm.weight", dim),
        hp.n_head,
        dim,
        hp.norm_eps,
    )
    q = g.rope(q, table, hp.n_head, dim, False)
    k = v = None
    if own:
        k = linear(g, x, f"{blk}attn_k", n_kv * dim)
        if g.has(f"{blk}attn_v.weight"):
            v = linear(g, x, f"{blk}attn_v", n_kv * dim)
        else:
            v = g.slice(k, 0, n_kv * dim, f"{blk}attn_v")
        v = g.head_norm(v, g.const(f"ones.{dim}", np.ones(dim, np.float32)), n_kv, dim, hp.norm_eps)
        k = g.head_norm(k, g.vector(f"{blk}attn_k_norm.weight", dim), n_kv, dim, hp.norm_eps)
        k = g.rope(k, table, n_kv, dim, False)
    elif cache is None:
        raise ModelError(f"layer {layer} shares keys and values, and no earlier layer of its kind has any")
    else:
        g.ignore(*(f"{blk}{name}.weight" for name in ("attn_k", "attn_v", "attn_k_norm")))
        n_kv = cache.n_kv
    out = g.attention(
        q, k, v, n_heads=hp.n_head, n_kv=n_kv, head_dim_k=dim, head_dim_v=dim, scale=1.0, window=hp.sliding_window,
        cache=cache,
    )  # fmt: skip
    return linear(g, out, f"{blk}attn_output", hp.n_embd)


def _experts(g: Graph, hp: Hparams, x: Value, layer: int) -> Value:
    """[T][n_embd] of x: normed for the router and for the experts, each with its own weights."""
    blk, n = f"blk.{layer}.", hp.n_expert
    if not n:
        raise ModelError(f"the file has tensors of experts, and {hp.architecture}.expert_count is missing or 0")
    n_ff = hp.keys.integer("expert_feed_forward_length")
    weight = g.const(f"{blk}router_norm", g.vector(f"{blk}ffn_gate_inp.scale", hp.n_embd).data * hp.n_embd**-0.5)
    logits = linear(g, g.rms_norm(x, weight, hp.norm_eps), f"{blk}ffn_gate_inp", n)
    scale = g.optional_vector(f"{blk}ffn_down_exps.scale", n)
    route = g.route(logits, hp.n_expert_used, SOFTMAX, True, expert_scale=scale)
    y = norm(g, hp, x, f"{blk}pre_ffw_norm_2")
    if g.has(f"{blk}ffn_gate_up_exps.weight"):
        both = expert_linear(g, hp, y, route, f"{blk}ffn_gate_up", 2 * n_ff, hp.n_embd)
        gate, up = (
            g.slice(both, i * n_ff, n_ff, f"{blk}ffn_{k}", hp.n_expert_used) for i, k in enumerate(("gate", "up"))
        )
    else:
        gate, up = (expert_linear(g, hp, y, route, f"{blk}ffn_{k}", n_ff, hp.n_embd) for k in ("gate", "up"))
    y = g.expert_sum(expert_linear(g, hp, g.gelu(gate, up), route, f"{blk}ffn_down", hp.n_embd, n_ff), route)
    return norm(g, hp, y, f"{blk}post_ffw_norm_2")
