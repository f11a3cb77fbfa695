"""pangu-embedded: openPangu Embedded. As qwen2, with biases on the output too."""

from __future__ import annotations

from .qwen2 import build

__all__ = ["build"]
