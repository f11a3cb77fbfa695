"""qwen3vlmoe: Qwen 3 VL with experts, text. As qwen3moe; all positions of M-RoPE are the same for text."""

from __future__ import annotations

from .qwen3moe import build

__all__ = ["build"]
