"""olmo: OLMo 1. LayerNorm without weights."""

from __future__ import annotations

from ..lazy import interleave
from ..mapping import DECODER, Mapping

CLASSES = ("OlmoForCausalLM",)


def convert(m: Mapping) -> None:
    c = m.config
    m.hparams(norm="layer")
    if c.has("clip_qkv"):
        m.key("attention.clamp_kqv", c.real("clip_qkv"))
    m.move(DECODER, {"attn_q": interleave(c.n_head), "attn_k": interleave(c.n_head_kv)})
