"""gemma: Gemma 1, CodeGemma."""

from __future__ import annotations

import math

from ..lazy import plus_one
from ..mapping import DECODER, GELU, GELU_TANH, Mapping

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


def query_scale(m: Mapping, layers_27b: int) -> float:
    """What queries are multiplied by, where the configuration scales scores otherwise than readers do: by the size of
    heads, and in the 27B, which they know by its number of layers, by the width per head."""
    c = m.config
    assumed = c.n_embd / c.n_head if c.n_layer == layers_27b else c.integer("head_dim", default=256)
    scale = c.real("query_pre_attn_scalar", default=256)
    if scale <= 0:
        raise c.error("'query_pre_attn_scalar' must be positive")
    return math.sqrt(assumed / scale)


def convert(m: Mapping) -> None:
    # "gelu" in a configuration is a mistake of the first releases, which transformers corrects
    m.hparams(act=(*GELU_TANH, *GELU))
    heads(m)
    m.drop(r"lm_head\.weight")
    m.move(DECODER, NORMS)
