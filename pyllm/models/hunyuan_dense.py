"""hunyuan-dense: Hunyuan 0.5B to 7B. An RMSNorm per head on q and k, after the rotation."""

from __future__ import annotations

import dataclasses

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    alpha = hp.keys.real("rope.scaling.alpha", 1.0)  # older files have it in the base already (NTK scaling)
    stretch = alpha ** (hp.head_dim_k / (hp.head_dim_k - 2)) if hp.head_dim_k > 2 else 1.0
    hp = dataclasses.replace(hp, rope_theta=hp.rope_theta * stretch)
    decoder(g, hp, interleaved=False, qk_norm="rotated")
