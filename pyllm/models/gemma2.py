"""gemma2: as gemma, with norms before and after, a window in every other layer, and caps on scores and logits."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder, rope_table
from .hparams import Hparams

#: where an older file does not say
DEFAULT_WINDOW = 4096
#: layers of the 27B, which scales by the width per head instead of the head size
LAYERS_27B = 46


def build(g: Graph, hp: Hparams) -> None:
    table = rope_table(g, hp)
    decoder(
        g,
        hp,
        interleaved=False,
        layers=[(table, 0 if i % 2 else hp.sliding_window or DEFAULT_WINDOW) for i in range(hp.n_layer)],
        post_norms=True,
        act="gelu",
        embed_scale=hp.n_embd**0.5,
        attn_scale=(hp.n_embd / hp.n_head) ** -0.5 if hp.n_layer == LAYERS_27B else 0.0,
        attn_softcap=hp.keys.real("attn_logit_softcapping", 50.0),
        logit_softcap=hp.keys.real("final_logit_softcapping", 30.0),
    )
