"""gemma2: Gemma 2. Windows in every other layer, soft caps, norms before and after."""

from __future__ import annotations

from ..lazy import times
from ..mapping import DECODER, GELU, GELU_TANH, Mapping
from .gemma import NORMS, SANDWICH, heads, query_scale

CLASSES = ("Gemma2ForCausalLM",)


def convert(m: Mapping) -> None:
    c = m.config
    m.hparams(act=(*GELU_TANH, *GELU))
    heads(m)
    m.key("attention.sliding_window", c.integer("sliding_window", default=4096))
    m.key("attn_logit_softcapping", c.real("attn_logit_softcapping", default=50.0))
    m.key("final_logit_softcapping", c.real("final_logit_softcapping", default=30.0))
    m.drop(r"lm_head\.weight")
    m.move(DECODER | SANDWICH, NORMS | {"attn_q": times(query_scale(m, 46))})
