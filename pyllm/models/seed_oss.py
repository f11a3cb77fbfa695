"""seed_oss: Seed-OSS 36B. As qwen2, with its own name for the second norm."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False)
