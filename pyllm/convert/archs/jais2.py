"""jais2: Jais 2. LayerNorm, biases, no gate."""

from __future__ import annotations

from ..mapping import DECODER, RELU2, Mapping

CLASSES = ("Jais2ForCausalLM",)


def convert(m: Mapping) -> None:
    m.hparams(norm="layer", act=RELU2)
    m.key("rope.dimension_count", m.config.n_rot)
    m.move(DECODER)
