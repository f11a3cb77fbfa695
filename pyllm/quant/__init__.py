"""Quantizing models, and the importance matrices that guide it."""

from __future__ import annotations

from .collect import collect_imatrix
from .imatrix import Imatrix
from .mix import MIXES, Mix, find_mix, find_type
from .rewrite import Quantized, quantize

__all__ = ["MIXES", "Imatrix", "Mix", "Quantized", "collect_imatrix", "find_mix", "find_type", "quantize"]
