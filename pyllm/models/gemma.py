"""gemma: Gemma 1, CodeGemma. Embeddings times sqrt(n_embd), GEGLU, tied head; the file's norm weights are w + 1."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False, act="gelu", embed_scale=hp.n_embd**0.5)
