"""float32 values to the types that a converted file can have."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np

from .._lib import ffi, lib
from ..errors import ConvertError
from ..gguf.header import TypeInfo, show, tensor_types
from .lazy import Lazy, Packed

Array = np.ndarray[Any, np.dtype[Any]]
TYPES: Final = ("auto", "f32", "f16", "bf16", "q8_0")
#: general.file_type by the type that most values have (llama.cpp, include/llama.h: llama_ftype)
FILE_TYPES: Final = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32, "MXFP4": 38}
#: matrices that readers expect in float32
_FLOAT: Final = (
    "ffn_gate_inp", "ffn_gate_inp_shexp", "position_embd", "ssm_conv1d", "shortconv.conv", "altup_correct_coef",
    "altup_predict_coef", "_norm",
)  # fmt: skip


@cache
def _info(name: str) -> TypeInfo:
    return next(t for t in tensor_types().values() if t.name == name)


def type_of(name: str, values: Lazy | Packed, wanted: str) -> TypeInfo:
    """The type that a tensor gets: float32 for vectors, norms and what readers expect so; where rows are no multiple of
    the type's block, F16."""
    if isinstance(values, Packed):
        return _info(values.type)
    stem = name.removesuffix(".weight")
    if len(values.shape) < 2 or stem == name or stem.endswith(_FLOAT):
        return _info("F32")
    if wanted == "auto":
        return _info(values.dtype if values.dtype in ("F16", "BF16") else "F32")
    info = _info(wanted.upper())
    return info if values.shape[-1] % info.block == 0 else _info("F16")


def encode(piece: Array, type_: TypeInfo, name: str) -> Array:
    """A piece of tensor `name`, float32 [rows][cols], as bytes of a type; of packed types it is bytes already."""
    piece = np.ascontiguousarray(piece)
    if type_.name == "F32" or piece.dtype != np.float32:
        return piece
    rows, cols = piece.shape
    out = np.empty(rows * cols // type_.block * type_.bytes, np.uint8)
    code = lib.pl_quantize(
        type_.id, ffi.from_buffer("float[]", piece), rows, cols, ffi.NULL, ffi.from_buffer(out, require_writable=True)
    )
    if code == lib.PL_E_RANGE:
        raise ConvertError(f"tensor {show(name)} has values that {type_.name} cannot hold: convert with --type bf16")
    if code == lib.PL_E_NUMBER:
        raise ConvertError(
            f"tensor {show(name)} has values that are no numbers (NaN or infinite): the weights are damaged"
        )
    if code < 0:
        raise MemoryError
    return out
