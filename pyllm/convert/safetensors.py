"""Reads safetensors checkpoints: one file, or shards with an index. Everything in a file is hostile until checked.

A file is a u64 (little endian) with the length of a JSON object, that object, and the tensors' bytes; the object
maps names to {"dtype", "shape", "data_offsets": [begin, end]}, offsets counted from the end of the object
(https://huggingface.co/docs/safetensors). Tensors are numpy views of the file's mapping: nothing is read before
it is used, and `release` gives pages back.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..errors import ConvertError, GGUFError
from ..gguf.header import map_file, show

Array = np.ndarray[Any, np.dtype[Any]]

#: spelling in the file -> numpy's type of the bits (BF16 and 8-bit floats have none of their own)
DTYPES: Final[dict[str, str]] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "|u1", "F8_E5M2": "|u1", "F8_E8M0": "|u1",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1",
    "BOOL": "|b1",
}  # fmt: skip
#: more than any real header, which has about 100 bytes per tensor
MAX_HEADER: Final = 100_000_000
MAX_DIMENSIONS: Final = 8
INDEX: Final = "model.safetensors.index.json"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a checkpoint. array: its bits, a read-only view [shape]; dtype: a key of DTYPES."""

    name: str
    dtype: str
    array: Array = field(repr=False)


class SafetensorsFile:
    """One open file. ConvertError for anything in it that cannot be, naming the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._map, size = map_file(path)
        except GGUFError as e:
            raise ConvertError(str(e).replace("a GGUF file", "a safetensors file")) from e
        if size < 8:
            raise self._error(f"it has {size} bytes, and a safetensors file has at least 8")
        (length,) = struct.unpack_from("<Q", self._map)
        if length > min(size - 8, MAX_HEADER):
            raise self._error(f"its header would have {length} bytes: it is damaged or no safetensors file")
        self._data = 8 + length
        self._size = size - self._data
        try:
            header = json.loads(self._map[8 : self._data].decode(), object_pairs_hook=_unique)
        except (ValueError, RecursionError) as e:
            raise self._error(f"its header is no JSON object: {e}") from e
        if not isinstance(header, dict):
            raise self._error("its header is no JSON object")
        header.pop("__metadata__", None)
        self.tensors = {name: self._tensor(name, entry) for name, entry in header.items()}
        self._check_overlaps(header)

    def _error(self, what: str) -> ConvertError:
        return ConvertError(f"{self.path}: {what}")

    def _tensor(self, name: str, entry: Any) -> StoredTensor:
        what = f"tensor {show(name)}"
        if not isinstance(entry, dict):
            raise self._error(f"{what} has no description")
        dtype, shape, span = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise self._error(f"{what} has the unknown dtype {dtype!r:.40}")
        if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(_natural(n) for n in shape):
            raise self._error(f"{what} has the impossible shape {shape!r:.80}")
        if not isinstance(span, list) or len(span) != 2 or not all(_natural(n) for n in span):
            raise self._error(f"{what} has the impossible offsets {span!r:.80}")
        begin, end = span
        kind = np.dtype(DTYPES[dtype])
        if not begin <= end <= self._size:
            raise self._error(f"{what} takes bytes {begin} to {end} of {self._size}: the file is cut short or damaged")
        if end - begin != math.prod(shape) * kind.itemsize:
            raise self._error(f"{what} of shape {shape} and type {dtype} cannot have {end - begin} bytes")
        array = np.frombuffer(self._map, kind, math.prod(shape), self._data + begin).reshape(shape)
        return StoredTensor(name, dtype, array)

    def _check_overlaps(self, header: dict[str, Any]) -> None:
        last, before = 0, ""
        for name in sorted(header, key=lambda n: header[n]["data_offsets"]):
            begin, end = header[name]["data_offsets"]
            if begin < last and begin != end:
                raise self._error(f"tensors {show(before)} and {show(name)} overlap")
            if end > last:
                last, before = end, name

    def release(self) -> None:
        """Give the pages read so far back to the system."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


class Checkpoint:
    """All tensors of a model folder: model.safetensors, or the shards that its index names."""

    def __init__(self, folder: Path) -> None:
        """ConvertError where there are no safetensors, or where the index and the shards do not agree."""
        index = folder / INDEX
        listed: dict[str, str] | None = None
        if index.is_file():
            names, listed = _read_index(index)
        else:
            names = sorted(p.name for p in folder.glob("*.safetensors"))
            if "model.safetensors" in names:
                names = ["model.safetensors"]
        if not names:
            raise ConvertError(f"{folder}: {_absence(folder)}")
        self.files = [SafetensorsFile(folder / name) for name in names]
        self.tensors: dict[str, StoredTensor] = {}
        for file in self.files:
            for name, tensor in file.tensors.items():
                if name in self.tensors:
                    raise ConvertError(f"{file.path}: tensor {show(name)} is in another shard too")
                self.tensors[name] = tensor
        missing = next((name for name in listed or {} if name not in self.tensors), None)
        if missing is not None:
            raise ConvertError(f"{index}: names tensor {show(missing)}, which no shard has")

    def release(self) -> None:
        """Give the pages read so far back to the system."""
        for file in self.files:
            file.release()


def _read_index(path: Path) -> tuple[list[str], dict[str, str]]:
    """The shards and what the index says of each tensor."""
    from .folder import read_json

    listed = read_json(path).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(v, str) for v in listed.values()):
        raise ConvertError(f"{path}: has no weight_map of tensor names to files")
    names = sorted(set(listed.values()))
    for name in names:
        if Path(name).name != name or name.startswith("."):
            raise ConvertError(f"{path}: names the shard {show(name)}, which is no file of this folder")
        if not (path.parent / name).is_file():
            raise ConvertError(f"{path}: names the shard {show(name)}, which is not there: download it too")
    return names, listed


def _absence(folder: Path) -> str:
    """Why a folder has no tensors."""
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        return (
            "has PyTorch's .bin files only, which can run code when they are read: save the model as safetensors first "
            "(transformers: model.save_pretrained(folder, safe_serialization=True))"
        )
    if any(folder.glob("*.gguf")):
        return "has a .gguf file already, which needs no conversion"
    return "has no .safetensors file"


def _natural(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a name is there twice")
    return out
