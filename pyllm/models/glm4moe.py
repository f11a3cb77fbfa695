"""glm4moe: GLM-4.5, 4.6, Air. Experts chosen by sigmoid, partial rotary positions; some have an RMSNorm per head on q
and k.
"""

from __future__ import annotations

from ..graph import SIGMOID, Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    qk_norm = "head" if g.has("blk.0.attn_q_norm.weight") else ""
    decoder(g, hp, interleaved=False, qk_norm=qk_norm, expert_gating=SIGMOID, expert_norm=False)
