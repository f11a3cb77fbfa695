"""Writes a model anew with other tensor types: piece by piece from the mapping of one file into another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._lib import ffi, lib
from ..errors import GGUFError, ModelError, PyllmError
from ..gguf import GGUFFile, TensorInfo
from ..gguf.file import drop_pages
from ..gguf.header import show
from ..gguf.writer import GGUFWriter
from .imatrix import Imatrix
from .mix import EMBEDDINGS, FLOATS, Choice, Mix, choose, find_mix, find_type

#: general.quantization_version: that of the block layouts, GGML_QNT_VERSION
QUANTIZATION_VERSION: Final = 2
#: elements quantized at once: what is in memory at a time is this many, in the old type and the new
PIECE: Final = 1 << 22
#: longest text that llama-quantize keeps of a path, in bytes
_LONGEST: Final = 127

Progress = Callable[[Choice, int, int], None]


@dataclass(frozen=True)
class Quantized:
    """What quantize did, or would do: each tensor's new type, and which of them the imatrix had no values for."""

    mix: Mix
    choices: list[Choice]
    not_in_imatrix: list[str]

    @property
    def bytes_before(self) -> int:
        return sum(c.tensor.nbytes for c in self.choices)

    @property
    def bytes_after(self) -> int:
        return sum(c.nbytes for c in self.choices)

    @property
    def n_elements(self) -> int:
        return sum(c.tensor.n_elements for c in self.choices)

    @property
    def fallbacks(self) -> list[Choice]:
        """Tensors whose rows are no multiple of the block of the type they should have got."""
        return [c for c in self.choices if c.type != c.wanted]


def quantize(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str] | None,
    mix: str,
    *,
    imatrix: Imatrix | str | os.PathLike[str] | None = None,
    tensor_types: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    pure: bool = False,
    allow_requantize: bool = False,
    leave_output: bool = False,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Write the GGUF file `source` (any part of a split one) to `target` with its matrices in the types of `mix`.

    mix: a name that llama-quantize knows: "Q4_K_M", "Q8_0", "IQ4_XS", "F16", ... (see MIXES). target: None writes
    nothing and says what would be written. imatrix: importances of input channels (an Imatrix, or the path of a file
    made by `pyllm imatrix` or llama-imatrix), by which errors are weighted. tensor_types: regular expressions and the
    types of the tensors whose names hold a match, instead of the mix's. output_type, embedding_type: types of
    output.weight (of the embedding where that is the head too), and of the embedding. pure: the mix's main type for
    all. allow_requantize: take tensors that are quantized already, which loses more than quantizing the original.
    leave_output: output.weight stays as it is. progress(choice, bytes done, bytes of all): after each piece of a
    tensor.

    The target appears when it is whole; what happens before leaves nothing behind. Memory in use is a few pieces of
    a tensor. ValueError for unknown names, ModelError for a file that cannot be quantized so, GGUFError for one that
    cannot be read or written.
    """
    chosen = find_mix(mix)
    named = [(pattern, find_type(name)) for pattern, name in _pairs(tensor_types)]
    data = imatrix if imatrix is None or isinstance(imatrix, Imatrix) else Imatrix.load(imatrix)
    with GGUFFile.open(source) as file:
        if target is not None:
            _check_not_same(file, Path(target))
        choices = choose(
            file,
            chosen,
            tensor_types=named,
            output_type=find_type(output_type) if output_type else None,
            embedding_type=find_type(embedding_type) if embedding_type else None,
            pure=pure,
            leave_output=leave_output,
            has_imatrix=data is not None,
        )
        weights = _weights(choices, chosen, data)
        missing = [c.tensor.name for c in choices if data is not None and _changes(c) and c.tensor.name not in weights]
        result = Quantized(chosen, choices, missing)
        if not allow_requantize:
            _check_originals(choices)
        if target is not None:
            with _Pool(n_threads) as pool, GGUFWriter(target) as writer:
                _announce(writer, file, result, data, imatrix)
                _write(writer, file, choices, weights, pool, progress)
    return result


def _pairs(types: Mapping[str, str] | Iterable[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    return list(types.items()) if isinstance(types, Mapping) else list(types)


def _changes(choice: Choice) -> bool:
    return choice.type != choice.tensor.type


def _check_not_same(file: GGUFFile, target: Path) -> None:
    for part in file.parts:
        if target.exists() and part.samefile(target):
            raise GGUFError(f"{target}: is the file to be quantized itself: give another path")


def _check_originals(choices: list[Choice]) -> None:
    for c in choices:
        if _changes(c) and c.tensor.type.name not in FLOATS:
            raise ModelError(
                f"tensor {show(c.tensor.name)} is quantized already, as {c.tensor.type.name}: start from a file of "
                "F16, BF16 or F32, or allow it (allow_requantize, --allow-requantize), which loses more"
            )


def _weights(choices: list[Choice], mix: Mix, data: Imatrix | None) -> dict[str, npt.NDArray[np.float32]]:
    """By tensor: [matrices, cols] importances. ModelError if a tensor has others, or none where it must have some."""
    found = {}
    for c in choices:
        name, matrices = c.tensor.name, c.tensor.shape[2] if len(c.tensor.shape) > 2 else 1
        if not _changes(c):
            continue
        values = data.importance(name) if data else None
        if values is not None and values.size != matrices * c.tensor.cols:
            if name in EMBEDDINGS:
                values = None
            else:
                raise ModelError(
                    f"the imatrix has {values.size} values for tensor {show(name)}, which has {matrices} x "
                    f"{c.tensor.cols} input channels: it was made from another model"
                )
        if values is not None:
            found[name] = np.ascontiguousarray(values.reshape(matrices, c.tensor.cols), np.float32)
        elif mix.name == "Q2_K_S" and c.type.name == "Q2_K" and name not in (*EMBEDDINGS, "output.weight"):
            raise ModelError(
                f"Q2_K_S needs an importance matrix (imatrix, --imatrix), and there are no values for tensor "
                f"{show(name)}: make one with pyllm imatrix, or take Q2_K"
            )
    return found


def _announce(writer: GGUFWriter, file: GGUFFile, result: Quantized, data: Imatrix | None, origin: Any) -> None:
    """Metadata as llama-quantize writes them, and the tensors."""
    writer.copy_metadata(file)
    writer.add("general.quantization_version", QUANTIZATION_VERSION, "u32")
    writer.add("general.file_type", result.mix.file_type, "u32")
    if data is not None:
        path = "" if isinstance(origin, Imatrix) else os.fspath(origin)
        if path or data.path:
            writer.add("quantize.imatrix.file", _short(path or data.path))
        if data.datasets:
            writer.add("quantize.imatrix.dataset", _short(data.datasets[0]))
        writer.add("quantize.imatrix.entries_count", len(data.sums), "u32")
        if data.n_chunks > 0:
            writer.add("quantize.imatrix.chunks_count", data.n_chunks, "u32")
    for c in result.choices:
        writer.add_tensor(c.tensor.name, c.tensor.shape, c.type)


def _short(text: str) -> str:
    return text.encode()[:_LONGEST].decode("utf-8", "ignore")


class _Pool:
    """Threads to quantize with."""

    def __init__(self, n_threads: int | None) -> None:
        from ..machine import default_threads

        self.n_threads = n_threads or default_threads()

    def __enter__(self) -> Any:
        self._pool = lib.pl_pool_new(self.n_threads)
        if self._pool == ffi.NULL:
            raise PyllmError(f"cannot start {self.n_threads} threads; ask for fewer with n_threads (-t)")
        return self._pool

    def __exit__(self, *exc: object) -> None:
        lib.pl_pool_free(self._pool)


def _write(
    writer: GGUFWriter,
    file: GGUFFile,
    choices: list[Choice],
    weights: Mapping[str, npt.NDArray[np.float32]],
    pool: Any,
    progress: Progress | None,
) -> None:
    total, done = sum(c.tensor.nbytes for c in choices), 0

    def write(tensor: TensorInfo, start: int, end: int, data: npt.NDArray[np.uint8]) -> None:
        """In a thread of its own, while the next piece is quantized."""
        writer.write(data)
        drop_pages(file.maps[tensor.part], tensor.offset + start, end - start)

    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(lambda: None)
        for c in choices:
            row = c.tensor.nbytes // c.tensor.rows
            for first, last, matrix in _pieces(c.tensor):
                start, end = first * row, last * row
                data = c.tensor.data[start:end]
                if _changes(c):
                    importance = weights[c.tensor.name][matrix] if c.tensor.name in weights else None
                    data = _convert(pool, c, data, last - first, importance)
                writing.result()
                writing = thread.submit(write, c.tensor, start, end, data)
                done += end - start
                if progress:
                    progress(c, done, total)
        writing.result()


def _pieces(tensor: TensorInfo) -> Iterable[tuple[int, int, int]]:
    """(first row, row after the last, matrix): at most PIECE elements, but one row at least, of one matrix."""
    per_matrix = tensor.shape[1] if len(tensor.shape) > 1 else 1
    step = max(1, PIECE // tensor.cols)
    for start in range(0, tensor.rows, per_matrix):
        for first in range(start, start + per_matrix, step):
            matrix = start // per_matrix
            yield first, min(first + step, start + per_matrix), matrix


def _convert(
    pool: Any, c: Choice, data: npt.NDArray[np.uint8], rows: int, importance: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.uint8]:
    """Rows of a tensor, in its new type."""
    cols = c.tensor.cols
    out = np.empty(rows * (cols // c.type.block) * c.type.bytes, np.uint8)
    weight = ffi.NULL if importance is None else ffi.from_buffer("float[]", importance)
    status = lib.pl_pool_quantize(
        pool, c.type.id, c.tensor.type.id, ffi.from_buffer(data), rows, cols, weight, ffi.from_buffer(out)
    )
    if status < 0:
        why = {
            lib.PL_E_NUMBER: "holds infinite values or NaN, which cannot be quantized",
            lib.PL_E_RANGE: "holds values too large to be quantized",
        }.get(status, "cannot be quantized")
        raise ModelError(f"tensor {show(c.tensor.name)} of type {c.tensor.type.name} {why} to {c.type.name}")
    return out
