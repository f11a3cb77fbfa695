"""granite: Granite 3 (dense). As llama, with factors."""

from __future__ import annotations

from ..lazy import interleave
from ..mapping import DECODER, Mapping

CLASSES = ("GraniteForCausalLM",)


def factors(m: Mapping) -> None:
    """The factors on scores, embeddings, residuals and logits."""
    for ours, theirs in (
        ("attention.scale", "attention_multiplier"),
        ("embedding_scale", "embedding_multiplier"),
        ("residual_scale", "residual_multiplier"),
        ("logit_scale", "logits_scaling"),
    ):
        m.key(ours, m.config.real(theirs, default=1.0))


def convert(m: Mapping) -> None:
    c = m.config
    m.hparams(head_dim=False)
    m.key("rope.dimension_count", c.n_embd // c.n_head)
    factors(m)
    m.move(DECODER, {"attn_q": interleave(c.n_head), "attn_k": interleave(c.n_head_kv)})
