"""nemotron_h_moe: Nemotron 3 Nano. As nemotron_h, with experts."""

from __future__ import annotations

from .nemotron_h import build

__all__ = ["build"]
