"""qwen2: Qwen 2 and 2.5."""

from __future__ import annotations

from ..mapping import DECODER, Mapping

CLASSES = ("Qwen2ForCausalLM",)


def convert(m: Mapping) -> None:
    if m.config.flag("use_sliding_window"):
        raise m.config.error("sliding windows of Qwen 2 are not supported")
    m.hparams()
    m.move(DECODER)
