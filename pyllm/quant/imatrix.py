"""Importance matrices: how large the inputs of each matrix are, per channel, over a text.

A quantizer weights its errors with them: a weight that is multiplied with large inputs must be nearer to what it was.
Files are llama.cpp's: GGUF, which pyllm writes, and the older .dat, which it reads as well.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ..errors import GGUFError
from ..gguf import GGUFFile, tensor_types
from ..gguf.header import show
from ..gguf.writer import GGUFWriter

SUMS, COUNTS = ".in_sum2", ".counts"
F32: Final = 0
MAGIC: Final = b"GGUF"


@dataclass
class Imatrix:
    """By the name of a weight: sums [matrices, cols] of squared inputs, and counts [matrices] (or [1], for all) of how
    many input rows were summed. Experts have a matrix each.

    n_chunks and chunk_size: pieces of text that were run, and tokens in each. datasets: the files that the text was
    read from. path: where this was loaded from."""

    sums: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    counts: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    datasets: list[str] = field(default_factory=list)
    n_chunks: int = 0
    chunk_size: int = 0
    path: str = ""

    def importance(self, name: str) -> npt.NDArray[np.float32] | None:
        """[matrices * cols] mean squares of the inputs of a weight, 1 for experts that saw none; None if unknown."""
        if name not in self.sums:
            return None
        counts = self.counts[name].reshape(-1, 1)
        sums = self.sums[name].reshape(len(counts), -1)
        mean = np.where(counts > 0, sums / np.maximum(counts, 1), 1.0)
        return mean.astype(np.float32).ravel()

    @property
    def partial(self) -> dict[str, float]:
        """Weights of which some experts saw no input: the share of those that did."""
        shares = {name: float(np.mean(c > 0)) for name, c in self.counts.items()}
        return {name: share for name, share in shares.items() if share < 1}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as llama-imatrix does (GGUF)."""
        f32 = tensor_types()[F32]
        with GGUFWriter(path) as w:
            w.add("general.type", "imatrix")
            w.add("imatrix.datasets", self.datasets, "array of string")
            w.add("imatrix.chunk_count", self.n_chunks, "u32")
            w.add("imatrix.chunk_size", self.chunk_size, "u32")
            names = sorted(self.sums)
            for name in names:
                n = len(self.counts[name])
                w.add_tensor(name + SUMS, _shape(self.sums[name].size // n, n), f32)
                w.add_tensor(name + COUNTS, _shape(1, n), f32)
            for name in names:
                w.write(np.ascontiguousarray(self.sums[name], np.float32))
                w.write(np.ascontiguousarray(self.counts[name], np.float32))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Imatrix:
        """Read a file of either format. GGUFError if it is neither, or holds what cannot be."""
        path = Path(path)
        try:
            with path.open("rb") as f:
                is_gguf = f.read(len(MAGIC)) == MAGIC
        except OSError as e:
            raise GGUFError(f"{path}: cannot be read: {e.strerror or e}") from e
        result = _load_gguf(path) if is_gguf else _load_legacy(path)
        result.path = os.fspath(path)
        for name, sums in result.sums.items():
            if not np.isfinite(sums).all() or (sums < 0).any():
                raise GGUFError(f"{path}: the values of {show(name)} are not all sums of squares")
        return result


def _shape(cols: int, rows: int) -> tuple[int, ...]:
    return (cols, rows) if rows > 1 else (cols,)


def _load_gguf(path: Path) -> Imatrix:
    with GGUFFile.open(path) as file:
        if not {"imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"} <= file.metadata.keys():
            raise GGUFError(f"{path}: is not an importance matrix: make one with pyllm imatrix")
        result = Imatrix(
            datasets=file.get_list("imatrix.datasets", str),
            n_chunks=file.get_int("imatrix.chunk_count", min=0),
            chunk_size=file.get_int("imatrix.chunk_size", min=0),
        )
        names = [name.removesuffix(SUMS) for name in file.tensors if name.endswith(SUMS)]
        if not names:
            raise GGUFError(f"{path}: holds no importance of any weight")
        for name in names:
            sums, counts = file.tensors[name + SUMS], file.tensors.get(name + COUNTS)
            if counts is None or {sums.type.id, counts.type.id} != {F32} or sums.n_elements % counts.n_elements:
                raise GGUFError(f"{path}: sums and counts of {show(name)} do not belong together")
            values = counts.dequantize().ravel()
            if not np.isfinite(values).all() or (values < 0).any():
                raise GGUFError(f"{path}: the counts of {show(name)} are not numbers of rows")
            result.counts[name] = np.rint(values).astype(np.int64)
            result.sums[name] = sums.dequantize().astype(np.float64).reshape(len(values), -1)
    return result


class _Bytes:
    """A file read from its beginning."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.at = path, path.read_bytes(), 0

    def take(self, n: int) -> bytes:
        if n < 0 or n > len(self.data) - self.at:
            raise GGUFError(f"{self.path}: is neither GGUF nor a whole importance matrix in the older format")
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self) -> int:
        return int(struct.unpack("<i", self.take(4))[0])


def _load_legacy(path: Path) -> Imatrix:
    """.dat: per weight its name, how many chunks there were, and that many times the mean squares; then the number of
    chunks and the name of the text, if they are there."""
    f, result = _Bytes(path), Imatrix()
    for _ in range(f.number()):
        name = f.take(f.number()).decode("utf-8", "replace")
        calls, n = f.number(), f.number()
        if n < 1:
            raise GGUFError(f"{path}: has no values for {show(name)}")
        result.sums[name] = np.frombuffer(f.take(4 * n), "<f4").astype(np.float64).reshape(1, n)
        result.counts[name] = np.array([max(calls, 1)], np.int64)
    if not result.sums:
        raise GGUFError(f"{path}: holds no importance of any weight")
    if f.at < len(f.data):
        result.n_chunks = max(f.number(), 0)
    if f.at < len(f.data):
        result.datasets = [f.take(f.number()).decode("utf-8", "replace")]
    return result
