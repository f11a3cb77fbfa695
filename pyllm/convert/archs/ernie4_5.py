"""ernie4_5: ERNIE 4.5 (dense). Rotary pairs are interleaved in the checkpoint already."""

from __future__ import annotations

from ..mapping import DECODER, Mapping

CLASSES = ("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM")


def convert(m: Mapping) -> None:
    m.hparams()
    m.move(DECODER)
