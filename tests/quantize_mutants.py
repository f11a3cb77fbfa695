"""Checks for mutate.run: a damaged model is quantized or refused, a damaged importance matrix read or refused."""

from __future__ import annotations

from pathlib import Path


def quantize(path: Path) -> None:
    """Rewrite the model with its matrices in other types."""
    from pyllm.errors import GGUFError, PyllmError
    from pyllm.quant import quantize

    try:
        quantize(path, path.with_name("out.gguf"), "Q4_K_M", n_threads=1)
    except PyllmError as e:
        raise GGUFError(str(e)) from e


def imatrix(path: Path) -> None:
    """Load it, and ask for all importances."""
    from pyllm.quant import Imatrix

    data = Imatrix.load(path)
    for name in data.sums:
        importance = data.importance(name)
        assert importance is not None and (importance >= 0).all()
