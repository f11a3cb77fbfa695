"""glm4: GLM-4 0414. Norms before and after attention and feed-forward."""

from __future__ import annotations

from ..mapping import DECODER, Mapping

CLASSES = ("Glm4ForCausalLM",)
OWN = {
    "{L}.post_self_attn_layernorm": "{B}.post_attention_norm",
    "{L}.post_mlp_layernorm": "{B}.post_ffw_norm",
    "{L}.mlp.gate_up_proj": "{B}.ffn_up",
}


def convert(m: Mapping) -> None:
    c = m.config
    m.hparams()
    m.key("rope.dimension_count", int(c.rope_real("partial_rotary_factor", 0.5) * c.head_dim))
    m.move(DECODER | OWN)
