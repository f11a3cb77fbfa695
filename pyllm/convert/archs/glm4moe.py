"""glm4moe: GLM-4.5, 4.6, Air."""

from __future__ import annotations

from ..mapping import DECODER, EXPERTS, QK_NORM, SHARED, Mapping

CLASSES = ("Glm4MoeForCausalLM",)


def convert(m: Mapping) -> None:
    c = m.config
    m.hparams()
    m.key("rope.dimension_count", int(c.rope_real("partial_rotary_factor", 0.5) * c.head_dim))
    m.routed_experts(sigmoid=True, normalize=True)
    m.drop_predictors()
    m.move(DECODER | EXPERTS | QK_NORM | SHARED | {"{L}.post_attention_layernorm": "{B}.post_attention_norm"})
