"""qwen2vl: Qwen 2 and 2.5 VL (their text). As qwen2."""

from __future__ import annotations

from ..mapping import DECODER, Mapping

CLASSES = ("Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration")


def sections(m: Mapping) -> None:
    """How many of the rotary frequencies stand for time, height and width."""
    values = m.config.rope.get("mrope_section")
    if not isinstance(values, list) or any(type(v) is not int for v in values) or not 1 <= len(values) <= 4:
        raise m.config.error("'mrope_section' is no list of numbers")
    m.key("rope.dimension_sections", [*values, 0, 0, 0][:4], "array of i32")


def convert(m: Mapping) -> None:
    if m.config.flag("use_sliding_window"):
        raise m.config.error("sliding windows of Qwen 2 are not supported")
    m.hparams()
    sections(m)
    m.move(DECODER)
