"""deepseek2: DeepSeek V2 and V3 and what builds on them. The matrix from latent to keys and values is split by head,
that of the keys transposed, so that it can be applied to queries."""

from __future__ import annotations

from ..lazy import transpose
from ..mapping import DECODER, EXPERTS, Mapping

CLASSES = ("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM")
OWN = {
    "{L}.self_attn.q_a_proj": "{B}.attn_q_a",
    "{L}.self_attn.q_a_layernorm": "{B}.attn_q_a_norm",
    "{L}.self_attn.q_b_proj": "{B}.attn_q_b",
    "{L}.self_attn.kv_a_proj_with_mqa": "{B}.attn_kv_a_mqa",
    "{L}.self_attn.kv_a_layernorm": "{B}.attn_kv_a_norm",
    "{L}.mlp.shared_experts.gate_proj": "{B}.ffn_gate_shexp",
    "{L}.mlp.shared_experts.up_proj": "{B}.ffn_up_shexp",
    "{L}.mlp.shared_experts.down_proj": "{B}.ffn_down_shexp",
    "{L}.mlp.gate.e_score_correction_bias": "{B}.exp_probs_b.bias",
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
    m.key("leading_dense_block_count", c.integer("first_k_dense_replace", default=0))
    m.experts(c.integer("n_routed_experts"), c.integer("num_experts_per_tok"), c.integer("moe_intermediate_size"))
    m.key("expert_shared_count", c.integer("n_shared_experts", default=0))
    m.key("expert_weights_scale", c.real("routed_scaling_factor", default=1.0))
    m.key("expert_weights_norm", c.flag("norm_topk_prob", default=v3))
    m.key("expert_gating_func", 2 if c.get("scoring_func", default="sigmoid" if v3 else "softmax") == "sigmoid" else 1)
    for ours, theirs in (("expert_group_count", "n_group"), ("expert_group_used_count", "topk_group")):
        if c.has(theirs):
            m.key(ours, c.integer(theirs))
    for layer, name in m.each("{L}.self_attn.kv_b_proj.weight"):
        both = m.take(name)
        if layer >= c.n_layer:
            continue
        if both.shape != (heads * (plain + n_value), latent):
            raise c.error(f"tensor {name!r} has the shape {both.shape}")
        by_head = both.view(lambda a: a.reshape(heads, plain + n_value, latent))
        m.put(f"blk.{layer}.attn_k_b.weight", transpose(by_head[:, :plain]))
        m.put(f"blk.{layer}.attn_v_b.weight", by_head[:, plain:])
    m.move(DECODER | EXPERTS | OWN)
    for layer in range(c.n_layer, c.n_layer + c.integer("num_nextn_predict_layers", default=0)):
        m.drop(rf"model\.layers\.{layer}\..*")  # layers that guess later tokens
