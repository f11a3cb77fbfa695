"""cohere2: Command R7B. Rotary pairs are interleaved in the checkpoint already."""

from __future__ import annotations

from ..mapping import DECODER, Mapping

CLASSES = ("Cohere2ForCausalLM",)


def convert(m: Mapping) -> None:
    c = m.config
    layers = c.get("layer_types")
    if c.get("sliding_window_pattern", default=4) != 4 or (
        layers is not None
        and layers != ["sliding_attention" if (i + 1) % 4 else "full_attention" for i in range(len(layers))]
    ):
        raise c.error("only models in which every fourth layer sees everything are supported")
    m.hparams(norm="layer")
    m.key("rope.dimension_count", c.head_dim)
    m.key("rope.scaling.type", "none")
    m.key("logit_scale", c.real("logit_scale", default=0.0625))
    m.key("attention.sliding_window", c.integer("sliding_window"))
    m.move(DECODER)
