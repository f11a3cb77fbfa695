"""phi2: Phi 1, 1.5, 2."""

from __future__ import annotations

from ..mapping import DECODER, GELU_TANH, Mapping

CLASSES = ("PhiForCausalLM",)
OWN = {
    "model.final_layernorm": "output_norm",
    "{L}.self_attn.dense": "{B}.attn_output",
    "{L}.mlp.fc1": "{B}.ffn_up",
    "{L}.mlp.fc2": "{B}.ffn_down",
}


def convert(m: Mapping) -> None:
    m.hparams(norm="layer", act=GELU_TANH)
    m.key("rope.dimension_count", m.config.n_rot)
    m.move(DECODER | OWN)
