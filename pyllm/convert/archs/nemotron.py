"""nemotron: Nemotron 3 and 4, Minitron. Norms that transformers multiplies by 1 + weight, no gate."""

from __future__ import annotations

from ..lazy import plus_one
from ..mapping import DECODER, RELU2, Mapping

CLASSES = ("NemotronForCausalLM",)
NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}


def convert(m: Mapping) -> None:
    c = m.config
    if c.has("norm_eps"):
        c.values.setdefault("layer_norm_eps", c.real("norm_eps"))
    m.hparams(norm="layer", act=RELU2)
    m.key("rope.dimension_count", c.n_rot)
    norms = {"model.norm.weight": "output_norm"}
    norms |= {
        f"model.layers.{i}.{old}.weight": f"blk.{i}.{new}" for i in range(c.n_layer) for old, new in NORMS.items()
    }
    for name, new in norms.items():  # the weights alone, not the biases
        m.put(f"{new}.weight", plus_one(m.take(name)))
    m.move(DECODER)
