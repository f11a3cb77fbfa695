"""plm: PLM 1.8B. Multi-head latent attention as in old files of DeepSeek V2, the square of relu without gate."""

from __future__ import annotations

from ..graph import Graph
from .blocks import feed_forward, norm, output, rope_table
from .deepseek2 import attention_of_expanded
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    table = rope_table(g, hp)
    x = g.embed(g.weight("token_embd.weight", hp.n_vocab, hp.n_embd))
    for layer in range(hp.n_layer):
        y = norm(g, hp, x, f"blk.{layer}.attn_norm")
        x = g.add(x, attention_of_expanded(g, hp, y, layer, table, interleaved=True, scale=hp.head_dim_k**-0.5))
        x = g.add(x, feed_forward(g, hp, norm(g, hp, x, f"blk.{layer}.ffn_norm"), layer, "relu2"))
    output(g, hp, x)
