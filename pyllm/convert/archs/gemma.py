"""gemma: Gemma 1, CodeGemma."""

from __future__ import annotations

from ..lazy import plus_one
from ..mapping import DECODER, Mapping

CLASSES = ("GemmaForCausalLM",)
NORMS = dict.fromkeys(
    ("attn_norm", "ffn_norm", "output_norm", "post_attention_norm", "post_ffw_norm", "attn_q_norm", "attn_k_norm"),
    plus_one,
)
#: norms before and after attention and feed-forward, of Gemma 2 and later
SANDWICH = {
    "{L}.post_attention_layernorm": "{B}.post_attention_norm",
    "{L}.pre_feedforward_layernorm": "{B}.ffn_norm",
    "{L}.post_feedforward_layernorm": "{B}.post_ffw_norm",
}


def heads(m: Mapping) -> None:
    """The size of heads, which is 256 where the configuration does not say."""
    dim = m.config.integer("head_dim", default=256)
    m.key("attention.key_length", dim)
    m.key("attention.value_length", dim)


def convert(m: Mapping) -> None:
    m.hparams()
    heads(m)
    m.drop(r"lm_head\.weight")
    m.move(DECODER, NORMS)
