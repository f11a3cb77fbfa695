"""stablelm: StableLM 2 (1.6B), StableLM 3B."""

from __future__ import annotations

from ..mapping import DECODER, Mapping

CLASSES = ("StableLmForCausalLM", "StableLMEpochForCausalLM")


def convert(m: Mapping) -> None:
    c = m.config
    m.hparams(norm="layer")
    m.key(
        "rope.dimension_count", int(c.rope_real("partial_rotary_factor", c.real("rope_pct", default=0.25)) * c.head_dim)
    )
    m.key("use_parallel_residual", c.flag("use_parallel_residual"))
    m.move(DECODER)
