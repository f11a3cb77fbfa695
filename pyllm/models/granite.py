"""granite: Granite 3. As llama, with factors on embeddings, scores and residuals; logits are divided by one."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    keys = hp.keys
    decoder(
        g,
        hp,
        interleaved=True,
        embed_scale=keys.real("embedding_scale", 1.0),
        residual_scale=keys.real("residual_scale", 1.0),
        attn_scale=keys.real("attention.scale", hp.head_dim_k**-0.5),
        logit_scale=1.0 / keys.real("logit_scale", 1.0),
    )
