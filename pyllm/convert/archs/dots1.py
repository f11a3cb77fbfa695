"""dots1: dots.llm1."""

from __future__ import annotations

from ..mapping import DECODER, EXPERTS, QK_NORM, SHARED, Mapping

CLASSES = ("Dots1ForCausalLM",)


def convert(m: Mapping) -> None:
    m.hparams()
    m.routed_experts(sigmoid=True, normalize=False)
    m.move(DECODER | EXPERTS | QK_NORM | SHARED)
