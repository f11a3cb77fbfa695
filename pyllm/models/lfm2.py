"""lfm2: LFM2. Layers of attention, with an RMSNorm per head on q and k, among layers of gated short convolutions."""

from __future__ import annotations

import numpy as np

from ..graph import Graph, Value
from .blocks import attention, head, linear, mlp, norm, rope_table
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    table = rope_table(g, hp)
    length = hp.keys.integer("shortconv.l_cache", low=2, high=64)
    x = g.embed(g.weight("token_embd.weight", hp.n_vocab, hp.n_embd))
    for layer, n_kv in enumerate(hp.keys.per_layer("attention.head_count_kv", low=0)):
        y = norm(g, hp, x, f"blk.{layer}.attn_norm")
        if n_kv:
            y = attention(g, hp, y, layer, table, interleaved=False, qk_norm="head", window=hp.sliding_window)
        else:
            y = _short_conv(g, hp, y, f"blk.{layer}.shortconv.", length)
        x = g.add(x, y)
        x = g.add(x, mlp(g, hp, norm(g, hp, x, f"blk.{layer}.ffn_norm"), layer))
    g.output(x, g.vector("token_embd_norm.weight", hp.n_embd), hp.norm_eps, head(g, hp))


def _short_conv(g: Graph, hp: Hparams, x: Value, name: str, length: int) -> Value:
    weight = g.flat(f"{name}conv.weight", hp.n_embd, length).reshape(hp.n_embd, length)
    bcx = linear(g, x, f"{name}in_proj", 3 * hp.n_embd)
    y = g.short_conv(bcx, g.const(f"{name}conv.weight", np.ascontiguousarray(weight.T).ravel()), length)
    return linear(g, y, f"{name}out_proj", hp.n_embd)
