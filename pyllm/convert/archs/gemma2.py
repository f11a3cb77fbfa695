"""gemma2: Gemma 2. Windows in every other layer, soft caps, norms before and after."""

from __future__ import annotations

from ..mapping import DECODER, Mapping
from .gemma import NORMS, SANDWICH, heads

CLASSES = ("Gemma2ForCausalLM",)


def convert(m: Mapping) -> None:
    c = m.config
    m.hparams()
    heads(m)
    m.key("attention.sliding_window", c.integer("sliding_window", default=4096))
    m.key("attn_logit_softcapping", c.real("attn_logit_softcapping", default=50.0))
    m.key("final_logit_softcapping", c.real("final_logit_softcapping", default=30.0))
    m.drop(r"lm_head\.weight")
    m.move(DECODER | SANDWICH, NORMS)
