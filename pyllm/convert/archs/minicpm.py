"""minicpm: MiniCPM 1 and 2. As llama, with factors."""

from __future__ import annotations

from ..lazy import interleave
from ..mapping import DECODER, Mapping

CLASSES = ("MiniCPMForCausalLM",)


def convert(m: Mapping) -> None:
    c = m.config
    m.hparams()
    m.key("rope.dimension_count", c.n_rot)
    m.key("embedding_scale", c.real("scale_emb"))
    m.key("residual_scale", c.real("scale_depth") / c.n_layer**0.5)
    m.key("logit_scale", c.n_embd / c.real("dim_model_base"))
    m.move(DECODER, {"attn_q": interleave(c.n_head), "attn_k": interleave(c.n_head_kv)})
