"""lfm2moe: LFM2 with experts. As lfm2."""

from __future__ import annotations

from .lfm2 import build

__all__ = ["build"]
