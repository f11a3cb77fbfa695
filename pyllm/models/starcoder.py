"""starcoder: StarCoder 1, SantaCoder. As gpt2, with one head of keys and values."""

from __future__ import annotations

from .gpt2 import build

__all__ = ["build"]
