"""gemma3n: Gemma 3n E2B and E4B.

AltUp (Baykal et al. 2023): n residual streams, of which each layer predicts all, computes one and corrects all by it.
LAuReL (Menghani et al. 2024): a learned low-rank residual beside attention. Per-layer embeddings: each layer gets some
values of the token's own, gated. The first layers keep only the gates that stick out of their row. The last layers have
no keys and values of their own, but attend to those of the last earlier layer of their kind. Value heads are normed,
attention scores are not scaled. MatFormer: layers may differ in width.
"""

from __future__ import annotations

import numpy as np

from ..errors import ModelError
from ..graph import Cache, Const, Graph, Value, Weight
from .blocks import head, linear, plain_rope_table, rope_table
from .hparams import Hparams

#: least mean square of a stream that is scaled to the size of another
LEAST = 1e-5
HALF_ROOT = 2.0**-0.5


def build(g: Graph, hp: Hparams) -> None:
    keys, d = hp.keys, hp.n_embd
    n, active = keys.integer("altup.num_inputs", low=2, high=4), keys.integer("altup.active_idx", low=0, high=3)
    if active >= n:
        raise ModelError(f"{keys.architecture}.altup.active_idx is {active}, and there are {n} streams")
    n_own = hp.n_layer - keys.integer("attention.shared_kv_layers", 0, low=0, high=hp.n_layer - 1)
    windowed = keys.flags("attention.sliding_window_pattern")
    sparsity = keys.reals("activation_sparsity_scale")
    widths = keys.per_layer("feed_forward_length")
    tables = {False: rope_table(g, hp), True: plain_rope_table(g, hp, keys.real("rope.freq_base_swa", 10000.0), "swa")}
    caches: dict[bool, Cache] = {}

    x = g.embed(g.weight("token_embd.weight", hp.n_vocab, d), d**0.5)
    inputs, n_input = layer_inputs(g, hp, x)
    streams = [x, *(g.match_rms(g.linear(x, w), x, LEAST) for w in _stack(g, "altup_proj", n - 1, d))]
    all_streams = g.concat(streams, "altup")
    for layer in range(hp.n_layer):
        blk = f"blk.{layer}."
        router = g.vector(f"{blk}altup_router_norm.weight", d).data / np.float32(d)
        router = np.concatenate([router, g.flat(f"{blk}altup_router.weight", n, d)])
        predict = g.flat(f"{blk}altup_predict_coef.weight", n * n, n)
        correct = g.flat(f"{blk}altup_correct_coef.weight", n, n)

        predicted = g.altup_predict(
            all_streams, g.const(f"{blk}predict", np.concatenate([router, predict])), n, active, hp.norm_eps,
            f"{blk}altup_predict",
        )  # fmt: skip
        x = g.slice(predicted, active * d, d, f"{blk}active")
        normed = _norm(g, hp, x, f"{blk}attn_norm")
        low = linear(g, normed, f"{blk}laurel_l", g.rows_of(f"{blk}laurel_l.weight"))
        low = linear(g, low, f"{blk}laurel_r", d)
        laurel = g.add(normed, _norm(g, hp, low, f"{blk}laurel_post_norm"))

        own = layer < n_own
        if not own:
            g.ignore(*(f"{blk}{name}.weight" for name in ("attn_k", "attn_v", "attn_k_norm")))
        kind = windowed[layer]
        attended = _attention(
            g, hp, normed, layer, tables[kind], hp.sliding_window if kind else 0, caches.get(kind), own
        )
        if own:
            caches[kind] = g.caches[-1]
        x = g.add(x, _norm(g, hp, attended, f"{blk}post_attention_norm"))
        x = g.scale(g.add(x, laurel), HALF_ROOT)

        normed = _norm(g, hp, x, f"{blk}ffn_norm")
        gate = linear(g, normed, f"{blk}ffn_gate", widths[layer])
        if np.isfinite(sparsity[layer]):
            gate = g.sparsify(gate, sparsity[layer])
        y = linear(g, g.gelu(gate, linear(g, normed, f"{blk}ffn_up", widths[layer])), f"{blk}ffn_down", d)
        x = g.add(x, _norm(g, hp, y, f"{blk}post_ffw_norm"))

        all_streams = g.altup_correct(
            predicted, g.const(f"{blk}correct", np.concatenate([router, correct])), x, n, active, hp.norm_eps,
            f"{blk}altup_correct",
        )  # fmt: skip
        y = g.slice(all_streams, active * d, d, f"{blk}corrected")
        y = g.multiply(y, g.vector(f"{blk}altup_correct_scale.weight", d))
        own_input = g.slice(inputs, layer * n_input, n_input, f"{blk}input")
        y = linear(g, g.gelu(linear(g, y, f"{blk}inp_gate", n_input), own_input), f"{blk}proj", d)
        all_streams = g.altup_add(all_streams, _norm(g, hp, y, f"{blk}post_norm"), n, active, f"{blk}altup")

    first = g.slice(all_streams, 0, d, "stream.0")
    total = first
    for k, w in enumerate(_stack(g, "altup_unembd_proj", n - 1, d), 1):
        total = g.add(total, g.match_rms(g.linear(g.slice(all_streams, k * d, d, f"stream.{k}"), w), first, LEAST))
    total = g.scale(total, 1.0 / n)
    norm = g.vector("output_norm.weight", d)
    g.output(total, norm, hp.norm_eps, head(g, hp), softcap=keys.real("final_logit_softcapping", 30.0))


def _norm(g: Graph, hp: Hparams, x: Value, name: str) -> Value:
    return g.rms_norm(x, g.vector(f"{name}.weight", hp.n_embd), hp.norm_eps)


def _stack(g: Graph, name: str, n: int, d: int) -> list[Weight]:
    """The n matrices [d][d] of a tensor of three dimensions."""
    return g.split(f"{name}.weight", {f"{name}.{k}.weight": d for k in range(1, n + 1)}, d, stacked=True)


def layer_inputs(g: Graph, hp: Hparams, x: Value) -> tuple[Value, int]:
    """[T][n_layer * n]: every layer's values of the token, from an embedding of their own and from x; and n."""
    n = hp.keys.integer("embedding_length_per_layer_input")
    own = g.embed(g.weight("per_layer_token_embd.weight", hp.n_vocab, hp.n_layer * n), n**0.5)
    of_x = g.scale(linear(g, x, "per_layer_model_proj", hp.n_layer * n), hp.n_embd**-0.5)
    of_x = g.head_norm(of_x, g.vector("per_layer_proj_norm.weight", n), hp.n_layer, n, hp.norm_eps)
    return g.scale(g.add(of_x, own), HALF_ROOT), n


def _attention(
    g: Graph, hp: Hparams, x: Value, layer: int, table: Value, window: int, cache: Cache | None, own: bool
) -> Value:
    """Attention of normed x to keys and values of its own, or to those in the cache of an earlier layer."""
    blk, dim = f"blk.{layer}.", hp.head_dim_k

    def heads(name: str, n: int, norm: Const) -> Value:
        return g.head_norm(linear(g, x, f"{blk}{name}", n * dim), norm, n, dim, hp.norm_eps)

    q = g.rope(heads("attn_q", hp.n_head, g.vector(f"{blk}attn_q_norm.weight", dim)), table, hp.n_head, dim, False)
    k = v = None
    if own:
        cache = None
        k = heads("attn_k", hp.n_head_kv, g.vector(f"{blk}attn_k_norm.weight", dim))
        k = g.rope(k, table, hp.n_head_kv, dim, False)
        v = heads("attn_v", hp.n_head_kv, g.const("ones", np.ones(dim, np.float32)))
    elif cache is None:
        raise ModelError(f"layer {layer} shares keys and values, and no earlier layer of its kind has any")
    out = g.attention(
        q,
        k,
        v,
        n_heads=hp.n_head,
        n_kv=hp.n_head_kv,
        head_dim_k=dim,
        head_dim_v=dim,
        scale=1.0,
        window=window,
        cache=cache,
    )
    return linear(g, out, f"{blk}attn_output", hp.n_embd)
