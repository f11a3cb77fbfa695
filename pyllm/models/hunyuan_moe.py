"""hunyuan-moe: Hunyuan A13B. As hunyuan-dense, with experts and a shared one."""

from __future__ import annotations

from .hunyuan_dense import build

__all__ = ["build"]
