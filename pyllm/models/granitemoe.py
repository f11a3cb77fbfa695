"""granitemoe: Granite 3 with experts. As granite."""

from __future__ import annotations

from .granite import build

__all__ = ["build"]
