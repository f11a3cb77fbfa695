"""dbrx: DBRX. LayerNorm without bias, experts; q, k and v are held within bounds."""

from __future__ import annotations

from ..graph import Graph
from .blocks import attention, moe, norm, output, rope_table
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    table = rope_table(g, hp)
    x = g.embed(g.weight("token_embd.weight", hp.n_vocab, hp.n_embd))
    for layer in range(hp.n_layer):
        y = norm(g, hp, x, f"blk.{layer}.attn_norm")
        x = g.add(x, attention(g, hp, y, layer, table, interleaved=False))
        x = g.add(x, moe(g, hp, norm(g, hp, x, f"blk.{layer}.attn_output_norm"), layer))
    output(g, hp, x)
