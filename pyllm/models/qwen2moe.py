"""qwen2moe: as qwen2, with experts whose weights are not normalized, and a shared expert behind a sigmoid gate."""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False, expert_norm=False)
