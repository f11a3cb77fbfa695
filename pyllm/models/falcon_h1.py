"""falcon-h1: Falcon H1. Attention and a state space layer side by side in each layer; factors are in the weights."""

from __future__ import annotations

from ..graph import Graph
from .blocks import attention, feed_forward, norm, output, rope_table
from .hparams import Hparams
from .mamba2 import mixer


def build(g: Graph, hp: Hparams) -> None:
    table = rope_table(g, hp)
    x = g.embed(g.weight("token_embd.weight", hp.n_vocab, hp.n_embd))
    for layer in range(hp.n_layer):
        y = norm(g, hp, x, f"blk.{layer}.attn_norm")
        x = g.add(g.add(x, mixer(g, hp, y, layer)), attention(g, hp, y, layer, table, interleaved=False))
        name = f"blk.{layer}.ffn_norm"  # some files have it without ".weight"
        weight = g.vector(name if g.has(name) else f"{name}.weight", hp.n_embd)
        x = g.add(x, feed_forward(g, hp, g.rms_norm(x, weight, hp.norm_eps), layer))
    output(g, hp, x)
