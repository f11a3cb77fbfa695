"""deepseek2: DeepSeek V2 and V3 and what builds on them. The matrix from latent to keys and values is split by head,
that of the keys transposed, so that it can be applied to queries."""

from __future__ import annotations

from ..lazy import transpose
from ..mapping import DECODER, EXPERTS, SHARED, Mapping

CLASSES = ("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM")
OWN = {
    "{L}.self_attn.q_a_proj": "{B}.attn_q_a",
    "{L}.self_attn.q_a_layernorm": "{B}.attn_q_a_norm",
    "{L}.self_attn.q_b_proj": "{B}.attn_q_b",
    "{L}.self_attn.kv_a_proj_with_mqa": "{B}.attn_kv_a_mqa",
    "{L}.self_attn.kv_a_layernorm": "{B}.attn_kv_a_norm",
}


def convert(m: Mapping) -> None:
    c = m.config
    v3 = c.model_class.startswith("DeepseekV3")
    plain, rotated, n_value = c.integer("qk_nope_head_dim"), c.integer("qk_rope_head_dim"), c.integer("v_head_dim")
    latent, heads = c.integer("kv_lora_rank"), c.n_head
    m.hparams(head_dim=False)
    m.key("attention.head_count_kv", 1)
    m.key("attention.key_length", latent + rotated)
    m.key("attention.value_length", latent)
    m.key("attention.key_length_mla", plain + rotated)
    m.key("attention.value_length_mla", n_value)
    m.key("attention.kv_lora_rank", latent)
    if c.has("q_lora_rank"):
        m.key("attention.q_lora_rank", c.integer("q_lora_rank"))
    m.key("rope.dimension_count", rotated)
    if c.rope.get("mscale_all_dim") is not None:
        m.key("rope.scaling.yarn_log_multiplier", 0.1 * c.rope_real("mscale_all_dim"))
    m.routed_experts(sigmoid=v3, normalize=v3)
    for layer, name in m.each("{L}.self_attn.kv_b_proj.weight"):
        both = m.take(name)
        if layer >= c.n_layer:
            continue
        if both.shape != (heads * (plain + n_value), latent):
            raise c.error(f"tensor {name!r} has the shape {both.shape}")
        by_head = both.view(lambda a: a.reshape(heads, plain + n_value, latent))
        m.put(f"blk.{layer}.attn_k_b.weight", transpose(by_head[:, :plain]))
        m.put(f"blk.{layer}.attn_v_b.weight", by_head[:, plain:])
    m.move(DECODER | EXPERTS | SHARED | OWN)
    m.drop_predictors()
