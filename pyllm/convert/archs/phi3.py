"""phi3: Phi 3 to 4, mini and medium. Fused q, k, v and gate, up stay so; LongRoPE has two sets of divisors."""

from __future__ import annotations

import math

import numpy as np

from ..lazy import Lazy
from ..mapping import DECODER, Mapping

CLASSES = ("Phi3ForCausalLM",)
FUSED = {"{L}.self_attn.qkv_proj": "{B}.attn_qkv", "{L}.mlp.gate_up_proj": "{B}.ffn_up"}


def convert(m: Mapping) -> None:
    c = m.config
    m.hparams(head_dim=False)
    n_rot = int(c.rope_real("partial_rotary_factor", 1.0) * (c.n_embd // c.n_head))
    m.key("rope.dimension_count", n_rot)
    m.key("attention.sliding_window", c.integer("sliding_window", default=0))
    n_ctx = c.integer("max_position_embeddings")
    original = int(c.rope_real("original_max_position_embeddings", n_ctx))
    m.key("rope.scaling.original_context_length", original)
    if c.rope.get("long_factor"):
        if original < 2:
            raise c.error("the original context is too short")
        scale = n_ctx / original
        factor = math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
        m.key("rope.scaling.attn_factor", c.rope_real("attention_factor", factor))
        for kind in ("long", "short"):
            values = np.array(c.rope_list(f"{kind}_factor", n_rot // 2), np.float32)
            m.put(f"rope_factors_{kind}.weight", Lazy.values(values))
    m.move(DECODER | FUSED)
