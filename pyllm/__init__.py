"""pyllm: runs GGUF language models on the machine you have.

>>> import pyllm
>>> with pyllm.LLM("smollm2") as llm:
...     print(llm.generate("Once upon a time", max_tokens=64, temperature=0).text)

Names are loaded when they are first used, so that `import pyllm` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .engine import Completion, Piece, Timings, Usage
    from .errors import (
        Cancelled,
        ContextError,
        DownloadError,
        GGUFError,
        MemoryPlanError,
        ModelError,
        PerplexityError,
        PyllmError,
        SamplingError,
        TemplateError,
        TokenizerError,
    )
    from .gguf import GGUFFile
    from .llm import LLM, plan
    from .model import MemoryPlan
    from .quant import Imatrix, collect_imatrix, quantize
    from .sampler import SamplingParams
    from .streams import AsyncStream, Stream
    from .tokenizer import Tokenizer

_HOME = {
    "LLM": "llm", "Stream": "streams", "AsyncStream": "streams", "plan": "llm", "MemoryPlan": "model",
    "Completion": "engine", "Piece": "engine", "Timings": "engine", "Usage": "engine",
    "SamplingParams": "sampler", "Tokenizer": "tokenizer", "GGUFFile": "gguf",
    "Imatrix": "quant", "collect_imatrix": "quant", "quantize": "quant",
    "PyllmError": "errors", "GGUFError": "errors", "ModelError": "errors", "TokenizerError": "errors",
    "TemplateError": "errors", "ContextError": "errors", "MemoryPlanError": "errors", "DownloadError": "errors",
    "SamplingError": "errors", "PerplexityError": "errors", "Cancelled": "errors",
}  # fmt: skip

__all__ = [
    "LLM",
    "AsyncStream",
    "Cancelled",
    "Completion",
    "ContextError",
    "DownloadError",
    "GGUFError",
    "GGUFFile",
    "Imatrix",
    "MemoryPlan",
    "MemoryPlanError",
    "ModelError",
    "PerplexityError",
    "Piece",
    "PyllmError",
    "SamplingError",
    "SamplingParams",
    "Stream",
    "TemplateError",
    "Timings",
    "Tokenizer",
    "TokenizerError",
    "Usage",
    "collect_imatrix",
    "plan",
    "quantize",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module 'pyllm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
