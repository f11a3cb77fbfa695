"""qwen3vl: Qwen 3 VL (dense; its text). As qwen3."""

from __future__ import annotations

from ..mapping import DECODER, QK_NORM, Mapping
from .qwen2vl import sections

CLASSES = ("Qwen3VLForConditionalGeneration",)


def deepstack(m: Mapping) -> None:
    """How many layers take more from images."""
    vision = m.config.get("vision_config", default={})
    layers = vision.get("deepstack_visual_indexes") if isinstance(vision, dict) else None
    m.key("n_deepstack_layers", len(layers) if isinstance(layers, list) else 0)


def convert(m: Mapping) -> None:
    m.hparams()
    sections(m)
    deepstack(m)
    m.move(DECODER | QK_NORM)
