"""lfm2moe: LFM2 with experts."""

from __future__ import annotations

from ..mapping import Mapping
from .lfm2 import CHANGES, NAMES, layers

CLASSES = ("Lfm2MoeForCausalLM",)
OWN = {
    "{L}.feed_forward.gate": "{B}.ffn_gate_inp",
    "{L}.feed_forward.expert_bias": "{B}.exp_probs_b.bias",
    "{L}.feed_forward.experts.{E}.w1": "{B}.ffn_gate_exps",
    "{L}.feed_forward.experts.{E}.w2": "{B}.ffn_down_exps",
    "{L}.feed_forward.experts.{E}.w3": "{B}.ffn_up_exps",
}


def convert(m: Mapping) -> None:
    c = m.config
    m.hparams()
    layers(m)
    m.experts(c.integer("num_experts"), c.integer("num_experts_per_tok"), c.integer("moe_intermediate_size"))
    m.key("leading_dense_block_count", c.integer("num_dense_layers"))
    m.key("expert_gating_func", 2)
    m.move(NAMES | OWN, CHANGES)
