"""qwen3: Qwen 3 (dense)."""

from __future__ import annotations

from ..mapping import DECODER, QK_NORM, Mapping

CLASSES = ("Qwen3ForCausalLM",)


def convert(m: Mapping) -> None:
    m.hparams()
    m.move(DECODER | QK_NORM)
