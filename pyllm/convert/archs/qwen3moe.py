"""qwen3moe: Qwen 3 MoE."""

from __future__ import annotations

from ..mapping import DECODER, EXPERTS, QK_NORM, Mapping

CLASSES = ("Qwen3MoeForCausalLM",)


def convert(m: Mapping) -> None:
    c = m.config
    if not c.flag("norm_topk_prob", default=True):
        raise c.error("Qwen 3 MoE without normalized weights of experts is not supported")
    m.hparams()
    m.experts(
        c.integer("num_experts", "num_local_experts"),
        c.integer("num_experts_per_tok"),
        c.integer("moe_intermediate_size"),
    )
    m.move(DECODER | EXPERTS | QK_NORM)
