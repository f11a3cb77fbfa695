"""minicpm3: MiniCPM 3. Readers know its factors, and no others."""

from __future__ import annotations

import numpy as np

from ..lazy import Lazy
from ..mapping import DECODER, Mapping

CLASSES = ("MiniCPM3ForCausalLM",)
OWN = {
    "{L}.self_attn.q_a_proj": "{B}.attn_q_a",
    "{L}.self_attn.q_a_layernorm": "{B}.attn_q_a_norm",
    "{L}.self_attn.q_b_proj": "{B}.attn_q_b",
    "{L}.self_attn.kv_a_proj_with_mqa": "{B}.attn_kv_a_mqa",
    "{L}.self_attn.kv_a_layernorm": "{B}.attn_kv_a_norm",
    "{L}.self_attn.kv_b_proj": "{B}.attn_kv_b",
}
FACTORS = {"scale_emb": 12.0, "scale_depth": 1.4, "dim_model_base": 256.0}


def convert(m: Mapping) -> None:
    c = m.config
    for name, value in FACTORS.items():
        if c.real(name, default=value) != value:
            raise c.error(f"{name!r} is {c.get(name)!r}, and only {value} is supported")
    rotated = c.integer("qk_rope_head_dim")
    m.hparams(head_dim=False)
    m.key("attention.key_length", c.integer("qk_nope_head_dim") + rotated)
    m.key("attention.value_length", c.integer("v_head_dim", default=c.n_embd // c.n_head))
    m.key("attention.q_lora_rank", c.integer("q_lora_rank"))
    m.key("attention.kv_lora_rank", c.integer("kv_lora_rank"))
    m.key("rope.dimension_count", rotated)
    if c.rope.get("long_factor"):
        for kind in ("long", "short"):
            values = np.array(c.rope_list(f"{kind}_factor", rotated // 2), np.float32)
            m.put(f"rope_factors_{kind}.weight", Lazy.values(values))
    m.move(DECODER | OWN)
