"""nemotron_h: Nemotron H, Nemotron Nano 2. Layers of attention without positions, state space or feed-forward."""

from __future__ import annotations

import dataclasses

from ..graph import SIGMOID, Graph, Value
from .blocks import attention, expert_linear, feed_forward, linear, norm, output, router
from .hparams import Hparams
from .mamba2 import mixer


def build(g: Graph, hp: Hparams) -> None:
    hp = dataclasses.replace(hp, layer_norm=False)  # the file has the epsilon under the other name
    keys = ("attention.head_count_kv", "feed_forward_length")
    kinds = zip(*(hp.keys.per_layer(key, low=0) for key in keys), strict=True)
    x = g.embed(g.weight("token_embd.weight", hp.n_vocab, hp.n_embd))
    for layer, (n_kv, n_ff) in enumerate(list(kinds)[: hp.n_layer]):
        y = norm(g, hp, x, f"blk.{layer}.attn_norm")
        if n_ff and g.has(f"blk.{layer}.ffn_gate_inp.weight"):
            y = _experts(g, hp, y, layer)
        elif n_ff:
            y = feed_forward(g, hp, y, layer, "relu2")
        elif n_kv:
            y = attention(g, hp, y, layer, None, interleaved=False)
        else:
            y = mixer(g, hp, y, layer)
        x = g.add(x, y)
    output(g, hp, x)


def _experts(g: Graph, hp: Hparams, x: Value, layer: int) -> Value:
    """[T][n_embd]: experts without gate, which may work on fewer values than n_embd, and a shared one."""
    blk = f"blk.{layer}."
    route = router(g, hp, x, layer, SIGMOID, False)
    low, n_low = x, hp.n_embd
    if g.has(f"{blk}ffn_latent_down.weight"):
        n_low = g.rows_of(f"{blk}ffn_latent_down.weight")
        low = linear(g, x, f"{blk}ffn_latent_down", n_low)
    n_ff = hp.keys.integer("expert_feed_forward_length")
    y = expert_linear(g, hp, low, route, f"{blk}ffn_up", n_ff, n_low)
    y = g.expert_sum(expert_linear(g, hp, g.relu(y, y), route, f"{blk}ffn_down", n_low, n_ff), route)
    if low is not x:
        y = linear(g, y, f"{blk}ffn_latent_up", hp.n_embd)
    up = linear(g, x, f"{blk}ffn_up_shexp", g.rows_of(f"{blk}ffn_up_shexp.weight"))
    return g.add(y, linear(g, g.relu(up, up), f"{blk}ffn_down_shexp", hp.n_embd))
