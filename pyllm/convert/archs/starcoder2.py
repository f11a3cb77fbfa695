"""starcoder2: StarCoder 2."""

from __future__ import annotations

from ..mapping import DECODER, GELU_TANH, Mapping

CLASSES = ("Starcoder2ForCausalLM",)
MLP = {"{L}.mlp.c_fc": "{B}.ffn_up", "{L}.mlp.c_proj": "{B}.ffn_down"}


def convert(m: Mapping) -> None:
    m.hparams(norm="layer", act=GELU_TANH)
    m.window()
    m.move(DECODER | MLP)
