"""granitehybrid: Granite 4 H. As granite; most layers are state space layers, and some files have no positions."""

from __future__ import annotations

from ..graph import Graph, Value
from .blocks import attention, mlp, norm, output, rope_table
from .hparams import Hparams
from .mamba2 import mixer


def build(g: Graph, hp: Hparams) -> None:
    keys = hp.keys
    table = rope_table(g, hp) if keys.flag("rope.scaling.finetuned", True) else None
    attn_scale = keys.real("attention.scale", hp.head_dim_k**-0.5)
    residual_scale = keys.real("residual_scale", 1.0)

    def add(x: Value, y: Value) -> Value:
        return g.add(x, y if residual_scale == 1.0 else g.scale(y, residual_scale))

    x = g.embed(g.weight("token_embd.weight", hp.n_vocab, hp.n_embd), keys.real("embedding_scale", 1.0))
    for layer, n_kv in enumerate(keys.per_layer("attention.head_count_kv", low=0)):
        y = norm(g, hp, x, f"blk.{layer}.attn_norm")
        if n_kv:
            y = attention(g, hp, y, layer, table, interleaved=True, scale=attn_scale)
        else:
            y = mixer(g, hp, y, layer)
        x = add(x, y)
        x = add(x, mlp(g, hp, norm(g, hp, x, f"blk.{layer}.ffn_norm"), layer))
    output(g, hp, x, scale=1.0 / keys.real("logit_scale", 1.0))
