"""olmoe: OLMoE. Experts, norms of queries and keys."""

from __future__ import annotations

from ..mapping import DECODER, EXPERTS, QK_NORM, Mapping

CLASSES = ("OlmoeForCausalLM",)


def convert(m: Mapping) -> None:
    c = m.config
    if c.flag("norm_topk_prob") or c.has("clip_qkv"):
        raise c.error("OLMoE with normalized weights of experts or clipped projections is not supported")
    m.hparams()
    m.experts(c.integer("num_experts", "num_local_experts"), c.integer("num_experts_per_tok"))
    m.move(DECODER | EXPERTS | QK_NORM)
