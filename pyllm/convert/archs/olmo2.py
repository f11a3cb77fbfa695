"""olmo2: OLMo 2. Norms after attention and feed-forward, and of queries and keys."""

from __future__ import annotations

from ..mapping import DECODER, QK_NORM, Mapping

CLASSES = ("Olmo2ForCausalLM",)
NORMS = {
    "{L}.post_attention_layernorm": "{B}.post_attention_norm",
    "{L}.post_feedforward_layernorm": "{B}.post_ffw_norm",
}


def convert(m: Mapping) -> None:
    m.hparams()
    m.move(DECODER | QK_NORM | NORMS)
