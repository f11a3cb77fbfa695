"""qwen2vl: Qwen 2 and 2.5 VL, text. As qwen2; all positions of M-RoPE are the same for text."""

from __future__ import annotations

from .qwen2 import build

__all__ = ["build"]
