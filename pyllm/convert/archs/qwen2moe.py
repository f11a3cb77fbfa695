"""qwen2moe: Qwen 1.5 and 2 MoE. Experts, and one that all tokens take through a gate."""

from __future__ import annotations

from ..mapping import DECODER, EXPERTS, Mapping

CLASSES = ("Qwen2MoeForCausalLM",)

SHARED = {
    "{L}.mlp.shared_expert.gate_proj": "{B}.ffn_gate_shexp",
    "{L}.mlp.shared_expert.up_proj": "{B}.ffn_up_shexp",
    "{L}.mlp.shared_expert.down_proj": "{B}.ffn_down_shexp",
    "{L}.mlp.shared_expert_gate": "{B}.ffn_gate_inp_shexp",
}


def convert(m: Mapping) -> None:
    c = m.config
    if c.flag("norm_topk_prob"):
        raise c.error("normalized weights of experts are not supported for Qwen 2 MoE")
    m.hparams()
    m.experts(
        c.integer("num_experts", "num_local_experts"),
        c.integer("num_experts_per_tok"),
        c.integer("moe_intermediate_size"),
    )
    m.key("expert_shared_feed_forward_length", c.integer("shared_expert_intermediate_size"))
    m.move(DECODER | EXPERTS | SHARED)
