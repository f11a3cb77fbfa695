"""minicpm: MiniCPM 1 and 2. As granite; files that lack the factors mean those of the 2B."""

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
        embed_scale=keys.real("embedding_scale", 12.0),
        residual_scale=keys.real("residual_scale", 1.4 * hp.n_layer**-0.5),
        logit_scale=1.0 / keys.real("logit_scale", hp.n_embd / 256),
    )
