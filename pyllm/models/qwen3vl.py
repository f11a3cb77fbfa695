"""qwen3vl: Qwen 3 VL (dense), text. As qwen3; all positions of M-RoPE are the same for text."""

from __future__ import annotations

from .qwen3 import build

__all__ = ["build"]
