"""codeshell: CodeShell. As starcoder2."""

from __future__ import annotations

from .starcoder2 import build

__all__ = ["build"]
