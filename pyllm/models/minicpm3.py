"""minicpm3: MiniCPM 3. Multi-head latent attention as in old files of DeepSeek V2, factors as in minicpm."""

from __future__ import annotations

from ..graph import Graph, Value
from .blocks import feed_forward, norm, output
from .deepseek2 import attention_of_expanded
from .hparams import Hparams
from .phi3 import long_rope_table

#: of the embedding, of the residuals together, and the width at which logits are as they are
EMBEDDING_SCALE, DEPTH_SCALE, BASE_WIDTH = 12.0, 1.4, 256


def build(g: Graph, hp: Hparams) -> None:
    table = long_rope_table(g, hp)

    def add(x: Value, y: Value) -> Value:
        return g.add(x, g.scale(y, DEPTH_SCALE * hp.n_layer**-0.5))

    x = g.embed(g.weight("token_embd.weight", hp.n_vocab, hp.n_embd), EMBEDDING_SCALE)
    for layer in range(hp.n_layer):
        y = norm(g, hp, x, f"blk.{layer}.attn_norm")
        x = add(x, attention_of_expanded(g, hp, y, layer, table, interleaved=False, scale=hp.head_dim_k**-0.5))
        x = add(x, feed_forward(g, hp, norm(g, hp, x, f"blk.{layer}.ffn_norm"), layer))
    output(g, hp, x, scale=BASE_WIDTH / hp.n_embd)
