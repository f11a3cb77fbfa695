"""Tensors as they will be written: views of the checkpoint's mapping, put together and changed piece by piece.

Nothing is read before it is written, and never more than a piece of some megabytes at once. Whatever moves values
around (permuted heads, split and stacked matrices) is a numpy view; what changes values is a function of float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import ConvertError
from .safetensors import DTYPES, StoredTensor

Array = np.ndarray[Any, np.dtype[Any]]
Floats = npt.NDArray[np.float32]
#: elements of a piece, at most, if a row is not longer
PIECE: Final = 1 << 22
_FLOATS: Final = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Lazy:
    """Values [shape] in C order: those of the views, one after the other, each by the function beside it."""

    dtype: str  # a key of safetensors.DTYPES, of all views
    shape: tuple[int, ...]
    views: tuple[tuple[Array, Callable[[Floats], Floats] | None], ...]

    @classmethod
    def of(cls, tensor: StoredTensor) -> Lazy:
        return cls(tensor.dtype, tensor.array.shape, ((tensor.array, None),))

    @classmethod
    def values(cls, array: Floats) -> Lazy:
        """Of values that are no tensor of the checkpoint."""
        array = np.ascontiguousarray(array, np.float32)
        return cls("F32", array.shape, ((array, None),))

    @classmethod
    def zeros(cls, shape: tuple[int, ...], dtype: str) -> Lazy:
        """Zeros, which take no memory."""
        return cls(dtype, shape, ((np.broadcast_to(np.zeros((), DTYPES[dtype]), shape), None),))

    @classmethod
    def join(cls, parts: Sequence[Lazy], shape: tuple[int, ...]) -> Lazy:
        """The parts one after the other as [shape]. ConvertError if they do not fill it."""
        if len({p.dtype for p in parts}) != 1 or sum(math.prod(p.shape) for p in parts) != math.prod(shape):
            raise ConvertError(f"tensors of shapes {[p.shape for p in parts][:4]} cannot be joined to {shape}")
        return cls(parts[0].dtype, shape, tuple(v for p in parts for v in p.views))

    @property
    def array(self) -> Array:
        """The bits, of a tensor that is one unchanged view."""
        ((view, function),) = self.views
        assert function is None
        return view

    @property
    def n_elements(self) -> int:
        return math.prod(self.shape)

    def view(self, change: Callable[[Array], Array], shape: tuple[int, ...] | None = None) -> Lazy:
        """Moved around by a numpy view (of one view); shape: if it is not the view's."""
        view = change(self.array)
        return Lazy(self.dtype, view.shape if shape is None else shape, ((view, None),))

    def __getitem__(self, index: slice | tuple[slice, ...]) -> Lazy:
        """A part, of one view."""
        return self.view(lambda a: a[index])

    def reshape(self, *shape: int) -> Lazy:
        """The same values in the same order under another shape."""
        assert math.prod(shape) == self.n_elements
        return Lazy(self.dtype, shape, self.views)

    def map(self, function: Callable[[Floats], Floats]) -> Lazy:
        """Every value by a function of float32 arrays."""

        def both(first: Callable[[Floats], Floats] | None) -> Callable[[Floats], Floats]:
            return function if first is None else lambda x: function(first(x))

        return Lazy(self.dtype, self.shape, tuple((view, both(f)) for view, f in self.views))

    def pieces(self) -> Iterator[Floats]:
        """The values as float32 arrays [rows][cols], in order; of matrices, whole rows. ConvertError for other types
        than floats."""
        for view, function in self.views:
            for part in _cut(view):
                floats = _widen(np.ascontiguousarray(part), self.dtype)
                floats = floats.reshape(-1, part.shape[-1] if part.ndim else 1)
                yield function(floats) if function else floats


def _cut(view: Array) -> Iterator[Array]:
    """A view in pieces of at most PIECE elements, cut along its first dimensions, never its last."""
    if view.size <= PIECE or view.ndim < 2:
        yield view
        return
    row = view.size // view.shape[0]
    if row > PIECE and view.ndim > 2:
        for item in view:
            yield from _cut(item)
        return
    step = max(1, PIECE // row)
    for i in range(0, view.shape[0], step):
        yield view[i : i + step]


def _widen(part: Array, dtype: str) -> Floats:
    """Bits of a dtype as float32; contiguous."""
    if dtype not in _FLOATS:
        raise ConvertError(f"weights of type {dtype} cannot be converted: take a checkpoint in F32, F16 or BF16")
    if dtype == "BF16":
        wide = part.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    with np.errstate(over="ignore"):
        return part.astype(np.float32, copy=False)


# -- what several architectures do ------------------------------------------------------------------------


def interleave(n_head: int) -> Callable[[Lazy], Lazy]:
    """Rows of each head from rotary halves (i, i + n/2) to pairs (2i, 2i + 1): [n_head * dim, ...]."""

    def change(x: Lazy) -> Lazy:
        rows, rest = x.shape[0], x.shape[1:]
        if rows % (2 * n_head):
            raise ConvertError(f"{rows} rows are not {n_head} heads of an even number")
        return x.view(lambda a: a.reshape(n_head, 2, rows // n_head // 2, *rest).swapaxes(1, 2), x.shape)

    return change


def plus_one(x: Lazy) -> Lazy:
    """Norms that transformers multiplies by 1 + weight."""
    return x.map(lambda v: v + np.float32(1))


def transpose(x: Lazy) -> Lazy:
    """[..., a, b] to [..., b, a]."""
    return x.view(lambda a: a.swapaxes(-1, -2))


def times(factor: float) -> Callable[[Lazy], Lazy]:
    """Everything times a factor."""
    return lambda x: x if factor == 1.0 else x.map(lambda v: v * np.float32(factor))


def grouped(n_kv: int, per_kv: int) -> Callable[[Lazy], list[Lazy]]:
    """[n_kv * (per_kv + 2) * dim, ...], in which each KV head follows the queries that share it, to q, k and v."""

    def split(x: Lazy) -> list[Lazy]:
        rows, rest = x.shape[0], x.shape[1:]
        if rows % (n_kv * (per_kv + 2)):
            raise ConvertError(f"{rows} rows are not {n_kv} groups of {per_kv + 2} heads")
        dim = rows // (n_kv * (per_kv + 2))
        heads = x.array.reshape(n_kv, per_kv + 2, dim, *rest)

        def part(view: Array) -> Lazy:
            return Lazy(x.dtype, (view.shape[0] * view.shape[1] * dim, *rest), ((view, None),))

        return [part(heads[:, :per_kv]), part(heads[:, per_kv : per_kv + 1]), part(heads[:, per_kv + 1 :])]

    return split


@dataclass(frozen=True)
class Packed:
    """Values that the checkpoint has in a type of GGUF already, but for the order of the bits."""

    type: str
    shape: tuple[int, ...]
    blocks: Array
    scales: Array

    @classmethod
    def mxfp4(cls, blocks: Lazy, scales: Lazy) -> Packed:
        """blocks uint8 [expert][row][n / 32][16]: values 2i and 2i + 1 of a block in byte i, low nibble first; scales
        uint8 [expert][row][n / 32]: exponents with a bias of 127 (OCP Microscaling Formats, 2023)."""
        b, s = blocks.array, scales.array
        if b.ndim != 4 or b.shape[3] != 16 or b.shape[:3] != s.shape or {b.dtype, s.dtype} != {np.dtype(np.uint8)}:
            raise ConvertError(f"experts of shapes {b.shape} and {s.shape} are no MXFP4")
        return cls("MXFP4", (*b.shape[:2], b.shape[2] * 32), b, s)

    def pieces(self) -> Iterator[npt.NDArray[np.uint8]]:
        """GGUF's blocks: the exponent, then byte i with values i and i + 16."""
        for codes, scales in zip(self.blocks, self.scales, strict=True):
            values = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:2], 32)
            packed = values[..., :16] | values[..., 16:] << 4
            yield np.concatenate([scales[..., None], packed], axis=-1)
