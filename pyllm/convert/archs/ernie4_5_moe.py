"""ernie4_5-moe: ERNIE 4.5 with experts."""

from __future__ import annotations

from ..mapping import DECODER, EXPERTS, SHARED, Mapping

NAME = "ernie4_5-moe"
CLASSES = ("Ernie4_5_MoeForCausalLM",)
OWN = {"{L}.mlp.moe_statics.e_score_correction_bias": "{B}.exp_probs_b.bias"}


def convert(m: Mapping) -> None:
    c = m.config
    n_ff = c.integer("moe_intermediate_size")
    m.hparams()
    m.experts(c.integer("moe_num_experts"), c.integer("moe_k"), n_ff)
    m.key("expert_shared_count", c.integer("moe_num_shared_experts", default=0))
    m.key("expert_shared_feed_forward_length", c.integer("moe_num_shared_experts", default=0) * n_ff)
    m.key("interleave_moe_layer_step", c.integer("moe_layer_interval", default=1))
    m.key("leading_dense_block_count", c.integer("moe_layer_start_index", default=0))
    m.drop(r"model\.mtp_.*")
    m.move(DECODER | EXPERTS | SHARED | OWN, {"bias": lambda x: x.reshape(x.n_elements)})
