"""Architectures. Each is one module named after GGUF's general.architecture with a function

    build(g: Graph, hp: Hparams) -> None

that writes the model's graph; it is found by import, so adding a file adds an architecture.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

from ..errors import ModelError
from ..graph import Graph
from .hparams import Hparams

Builder = Callable[[Graph, Hparams], None]

#: modules of this package that are not architectures
_SHARED = {"hparams", "blocks"}


def architectures() -> list[str]:
    """Names that general.architecture may have."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _SHARED)


def builder(architecture: str) -> Builder:
    """The build function of an architecture; ModelError naming the supported ones if there is none."""
    name = architecture.replace("-", "_")
    if name not in architectures():
        raise ModelError(
            f"architecture {architecture!r} is not supported; this version runs: {', '.join(architectures())}"
        )
    build: Builder = importlib.import_module(f"{__name__}.{name}").build
    return build
