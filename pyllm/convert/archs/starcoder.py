"""starcoder: StarCoder 1, SantaCoder. As gpt2, with one head of keys and values, and matrices as usual."""

from __future__ import annotations

from ..mapping import GELU_TANH, Mapping
from .gpt2 import NAMES, TOP

CLASSES = ("GPTBigCodeForCausalLM",)


def convert(m: Mapping) -> None:
    c = m.config
    if not c.flag("multi_query", default=True):
        raise c.error("only models with one head of keys and values are supported")
    c.values |= {"intermediate_size": c.get("n_inner") or 4 * c.n_embd, "num_key_value_heads": 1}
    m.hparams(norm="layer", act=GELU_TANH)
    del m.metadata["starcoder.rope.freq_base"]
    m.drop(r"lm_head\.weight")
    m.move(NAMES | {f"transformer.{old}": new for old, new in TOP.items()})
