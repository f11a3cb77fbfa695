"""gemma3: as gemma, with an RMSNorm per head on q and k, norms before and after, and five windowed layers to each one
that sees everything.

The windowed layers rotate with a base of their own, unscaled; the file's frequency base and scaling are for the others.
"""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder, plain_rope_table, rope_table
from .hparams import Hparams

PATTERN = 6
#: layers of the 27B, which scales by the width per head instead of the head size
LAYERS_27B = 62


def build(g: Graph, hp: Hparams) -> None:
    whole = rope_table(g, hp)
    local = plain_rope_table(g, hp, hp.keys.real("rope.freq_base_swa", 10000.0), "rope_swa")
    window = hp.sliding_window
    decoder(
        g,
        hp,
        interleaved=False,
        qk_norm="head",
        layers=[(local, window) if (i + 1) % PATTERN else (whole, 0) for i in range(hp.n_layer)],
        post_norms=True,
        act="gelu",
        embed_scale=hp.n_embd**0.5,
        attn_scale=(hp.n_embd / hp.n_head) ** -0.5 if hp.n_layer == LAYERS_27B else 0.0,
        logit_softcap=hp.keys.real("final_logit_softcapping") if hp.keys.has("final_logit_softcapping") else 0.0,
    )
