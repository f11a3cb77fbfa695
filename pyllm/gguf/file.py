"""An open GGUF model: one file or all parts of a split one, with typed access to its metadata and tensors."""

from __future__ import annotations

import math
import mmap
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numpy as np

from .._lib import ffi, lib
from ..errors import GGUFError, ModelError
from .header import Part, TypeInfo, show

D = TypeVar("D")
T = TypeVar("T", str, int, float, bool)

_SPLIT_NAME: Final = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})\.gguf", re.DOTALL)
#: bytes around a page that the system maps along with it
_NEARBY: Final = 1 << 21
_INT: Final = ("u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64")
# Tensor types that numpy has numbers for
_NUMBERS: Final[dict[str, np.dtype[Any]]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I8": np.dtype("i1"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
}
# What a getter asks for -> the file's types that it takes
_KINDS: Final[dict[type, tuple[str, ...]]] = {
    int: _INT,
    float: ("f32", "f64", *_INT),
    str: ("string",),
    bool: ("bool",),
}


class Required:
    """The type of REQUIRED, the default of a getter whose key must be there."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = Required()


@dataclass(frozen=True, eq=False, slots=True)
class TensorInfo:
    """One tensor of an open file. shape is in GGUF's order: shape[0], the row length, is the fastest."""

    name: str
    shape: tuple[int, ...]
    type: TypeInfo
    offset: int  # of the first byte, from the start of its part
    nbytes: int
    part: int  # index into GGUFFile.parts
    _part: Part = field(repr=False)

    @property
    def cols(self) -> int:
        """Elements per row."""
        return self.shape[0]

    @property
    def rows(self) -> int:
        """Number of rows: the product of all dimensions but the first."""
        return math.prod(self.shape[1:])

    @property
    def n_elements(self) -> int:
        """Number of elements: the product of all dimensions."""
        return math.prod(self.shape)

    @property
    def data(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The bytes [nbytes], a read-only view of the file's mapping; GGUFError once the file is closed."""
        if self._part.map is None:
            raise GGUFError(f"{self._part.path}: the file is closed, tensor {show(self.name)} cannot be read")
        return np.frombuffer(self._part.map, np.uint8, self.nbytes, self.offset)

    @property
    def array(self) -> np.ndarray[Any, Any]:
        """The values of an F16, F32, F64, I8, I16, I32 or I64 tensor, a read-only view of the file's mapping in numpy's
        order (shape reversed); ModelError for other types, GGUFError once the file is closed."""
        if self.type.name not in _NUMBERS:
            raise ModelError(
                f"tensor {show(self.name)} is of type {self.type.name}, which numpy has no numbers for: dequantize it"
            )
        return self.data.view(_NUMBERS[self.type.name]).reshape(self.shape[::-1])

    @property
    def has_kernel(self) -> bool:
        """Whether a model can compute with the type: I32 tensors, for example, can only be read."""
        return bool(lib.pl_dequantize(self.type.id, ffi.NULL, ffi.NULL, 0) == 0)

    def dequantize(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The values as float32, rounded to nearest, in numpy's order (shape reversed).

        ModelError for Q8_1 and Q8_K, which are no types of files, GGUFError once the file is closed.
        """
        if not self.has_kernel and self.type.name in _NUMBERS:
            return self.array.astype(np.float32)
        out = np.empty(self.shape[::-1], np.float32)
        dst = ffi.from_buffer("float[]", out, require_writable=True)
        if lib.pl_dequantize(self.type.id, ffi.from_buffer(self.data), dst, out.size) < 0:
            raise ModelError(
                f"tensor {show(self.name)} is of type {self.type.name}, which is none of files: convert the model again"
            )
        return out


class GGUFFile:
    """An open GGUF file, or all the parts of a split one (metadata is then the first part's).

    Numbers in `metadata` are int, float or bool, arrays of numbers read-only numpy arrays, arrays of strings
    lists of str. Close it, or use it in a `with` block: TensorInfo.data is refused afterwards.
    """

    path: Path
    parts: list[Path]
    version: int
    alignment: int
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]
    file_size: int  # bytes, all parts together
    maps: list[mmap.mmap]  # one per part, empty once closed

    def __init__(self, path: Path, parts: list[Part]) -> None:
        """Use `open`; parts are in order and belong together."""
        self.path = path
        self.parts = [p.path for p in parts]
        self.version = parts[0].version
        self.alignment = parts[0].alignment
        self.metadata = parts[0].metadata
        self.file_size = sum(p.size for p in parts)
        self.maps = [p.map for p in parts if p.map is not None]
        self.tensors = {}
        self._parts = parts
        self._types = parts[0].types
        for i, part in enumerate(parts):
            for name, (shape, type_, offset, nbytes) in part.tensors.items():
                if name in self.tensors:
                    other = self.parts[self.tensors[name].part]
                    raise GGUFError(f"{part.path}: tensor {show(name)} is already in {other}")
                self.tensors[name] = TensorInfo(name, shape, type_, offset, nbytes, i, part)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> GGUFFile:
        """Open a GGUF file. Any part of a split model opens all of them; they must lie side by side.

        Raises GGUFError for whatever is wrong with it, a path where there is no file included.
        """
        first = Part(Path(path))
        parts = [first]
        try:
            if (names := _split_names(first)) is not None:
                parts = []
                for name in names:
                    parts.append(first if name == first.path else Part(name))
                _check_split(parts)
            return cls(first.path, parts)
        except BaseException:
            for part in {first, *parts}:
                part.close()
            raise

    def close(self) -> None:
        """Release the mappings. Closing twice is fine.

        Arrays taken from TensorInfo.data stay valid: the last of them releases their part's mapping.
        """
        self.maps = []
        for part in self._parts:
            part.close()

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<GGUFFile {str(self.path)!r}, {len(self.metadata)} keys, {len(self.tensors)} tensors>"

    # -- metadata -------------------------------------------------------------------------------------------

    @property
    def architecture(self) -> str:
        """The value of general.architecture; GGUFError when it is missing."""
        return self.get_str("general.architecture")

    def type_of(self, key: str) -> str:
        """The type of a key of `metadata` in the file: "u32", "string", "array of f32", ..."""
        return self._types[key]

    def error(self, key: str, message: str) -> GGUFError:
        """What to raise about the value of a key."""
        return GGUFError(f"{self.path}: {key} {message}")

    def _get(self, key: str, default: Any, kind: type, array: bool = False) -> Any:
        """The value of a key that has this kind; else the default; else GGUFError."""
        if key not in self.metadata:
            if default is REQUIRED:
                raise GGUFError(f"{self.path}: key {key} is missing")
            return default
        found, prefix = self._types[key], "array of " if array else ""
        if found not in [prefix + t for t in _KINDS[kind]]:
            raise self.error(key, f"is of type {found}, where {prefix}{kind.__name__} is expected")
        return self.metadata[key]

    def get_int(
        self, key: str, default: D | Required = REQUIRED, *, min: int | None = None, max: int | None = None
    ) -> int | D:
        """The value of an integer key of any width; GGUFError if it is not within [min, max]."""
        v: Any = self._get(key, default, int)
        if key in self.metadata and ((min is not None and v < min) or (max is not None and v > max)):
            bounds = f"{min} or more" if max is None else f"{max} or less" if min is None else f"from {min} to {max}"
            raise self.error(key, f"is {v}, where {bounds} is expected")
        return cast("int | D", v)

    def get_float(self, key: str, default: D | Required = REQUIRED) -> float | D:
        """The value of a float key, or of an integer one converted; GGUFError if it is not finite."""
        v: Any = self._get(key, default, float)
        if key not in self.metadata:
            return cast("D", v)
        if not math.isfinite(v):
            raise self.error(key, f"is {v}, where a finite number is expected")
        return float(v)

    def get_str(self, key: str, default: D | Required = REQUIRED) -> str | D:
        """The value of a string key."""
        return cast("str | D", self._get(key, default, str))

    def get_bool(self, key: str, default: D | Required = REQUIRED) -> bool | D:
        """The value of a bool key."""
        return cast("bool | D", self._get(key, default, bool))

    def get_list(
        self, key: str, kind: type[T], default: D | Required = REQUIRED, *, length: int | None = None
    ) -> list[T] | D:
        """An array key's values as a list of str, int, float (integers are converted) or bool."""
        v: Any = self._get(key, default, kind, array=True)
        if key not in self.metadata:
            return cast("D", v)
        self._check_length(key, length)
        if kind is float:
            v = v.astype(np.float64)
        return cast("list[T]", list(v) if kind is str else v.tolist())

    def get_array(
        self, key: str, kind: type[T], default: D | Required = REQUIRED, *, length: int | None = None
    ) -> np.ndarray[Any, Any] | D:
        """An array key's values of int, float or bool as the numpy array [length] that `metadata` holds."""
        v: Any = self._get(key, default, kind, array=True)
        if key in self.metadata:
            self._check_length(key, length)
        return cast("np.ndarray[Any, Any] | D", v)

    def _check_length(self, key: str, length: int | None) -> None:
        n = len(self.metadata[key])
        if length is not None and n != length:
            raise self.error(key, f"has {n} elements, where {length} are expected")


def _split(part: Part, key: str) -> int:
    """An integer key of split files."""
    if part.types.get(key) not in _INT:
        found = f"of type {part.types[key]}" if key in part.types else "missing"
        raise GGUFError(f"{part.path}: {key} is {found}, where an integer is expected")
    return int(part.metadata[key])


def _split_names(part: Part) -> list[Path] | None:
    """The paths of all parts of the split model that this part belongs to, in order; None if it is whole."""
    if "split.count" not in part.metadata or (count := _split(part, "split.count")) in (0, 1):
        return None
    no = _split(part, "split.no")
    named = _SPLIT_NAME.fullmatch(part.path.name)
    if named is None or (int(named[2]) - 1, int(named[3])) != (no, count):
        name = f"NAME-{no + 1:05d}-of-{count:05d}.gguf"
        raise GGUFError(f"{part.path}: is part {no + 1} of {count} of a split model and must be called {name}")
    return [part.path.with_name(f"{named[1]}-{i + 1:05d}-of-{count:05d}.gguf") for i in range(count)]


def _check_split(parts: list[Part]) -> None:
    """That the parts are what they claim: part i of n, and together all tensors."""
    for i, part in enumerate(parts):
        no, count = _split(part, "split.no"), _split(part, "split.count")
        if (no, count) != (i, len(parts)):
            raise GGUFError(f"{part.path}: says that it is part {no + 1} of {count}, not {i + 1} of {len(parts)}")
    claimed, n = _split(parts[0], "split.tensors.count"), sum(len(p.tensors) for p in parts)
    if claimed != n:
        raise GGUFError(f"{parts[0].path}: split.tensors.count is {claimed}, but the parts hold {n} tensors")


def drop_pages(m: mmap.mmap, offset: int, nbytes: int) -> None:
    """Take the pages of these bytes out of this process, with those around them that the system mapped along."""
    start, end = offset // _NEARBY * _NEARBY, min(-(-(offset + nbytes) // _NEARBY) * _NEARBY, len(m))
    if hasattr(mmap, "MADV_DONTNEED"):
        m.madvise(mmap.MADV_DONTNEED, start, end - start)
