"""Reads GGUF files: metadata as Python values, tensors as views of a memory map. `pyllm.gguf.writer` writes them."""

from __future__ import annotations

from ..errors import GGUFError
from .file import REQUIRED, GGUFFile, TensorInfo
from .header import TypeInfo, tensor_types

__all__ = ["REQUIRED", "GGUFError", "GGUFFile", "TensorInfo", "TypeInfo", "tensor_types"]
