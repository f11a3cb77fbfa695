"""Writes one GGUF file (version 3, little endian), tensor by tensor, so that no model needs to fit in memory.

The layout is that of the GGUF specification (ggml, docs/gguf.md). The file appears under its name only when it is
whole: until then it is a temporary file beside it, which an error or an interruption removes.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from ..errors import GGUFError
from .file import GGUFFile
from .header import ARRAY, BOOL, DEFAULT_ALIGNMENT, NUMBERS, STRING, TypeInfo, show

VERSION: Final = 3
_IDS: Final = {name: id_ for id_, (name, _) in NUMBERS.items()} | {"string": STRING}
#: how many bytes of a tensor are handed to the system at once
_PIECE: Final = 1 << 24


@dataclass(frozen=True)
class NewTensor:
    """A tensor to be written. shape is in GGUF's order: shape[0], the row length, is the fastest."""

    name: str
    shape: tuple[int, ...]
    type: TypeInfo

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return math.prod(self.shape) // self.type.block * self.type.bytes


class GGUFWriter:
    """Announce metadata and tensors, then write the tensors' bytes in that order:

        with GGUFWriter(path) as w:
            w.add("general.architecture", "llama")
            w.add_tensor("output_norm.weight", (64,), tensor_types()[0])
            w.write(values)

    The file is there when the block ends without an exception. Raises GGUFError for what GGUF cannot express and
    for a file system that is full, ValueError for bytes that do not fill the tensors announced.
    """

    def __init__(self, path: str | os.PathLike[str], alignment: int = DEFAULT_ALIGNMENT) -> None:
        self.path = Path(path)
        self.alignment = alignment
        self.metadata: dict[str, tuple[str, Any]] = {}
        self.tensors: dict[str, NewTensor] = {}
        self._file: BinaryIO | None = None
        self._left: Iterator[NewTensor] | None = None  # tensors not yet begun, once the header is written
        self._rest = 0  # bytes that the tensor being written still lacks
        self._at = 0  # bytes written so far

    def __enter__(self) -> GGUFWriter:
        try:
            fd, name = tempfile.mkstemp(prefix=f".{self.path.name}.", suffix=".tmp", dir=self.path.parent)
        except OSError as e:
            raise GGUFError(f"{self.path}: cannot be written: {e.strerror or e}") from e
        self._temporary = Path(name)
        self._file = os.fdopen(fd, "wb", buffering=0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        assert self._file is not None
        try:
            if kind is None:
                self._finish()
        finally:
            self._file.close()
            with contextlib.suppress(OSError):  # it has its name by now, or is given up
                self._temporary.unlink()
        if isinstance(error, OSError):
            raise self._failed(error) from error

    def _finish(self) -> None:
        """Everything is written: give the file its name."""
        assert self._file is not None
        if self._left is None:
            self._header()
        assert self._left is not None
        missing = next(self._left, None)
        if self._rest or missing is not None:
            raise ValueError(f"{self.path}: the data of tensor {missing.name if missing else '(the last)'} is missing")
        try:
            os.fsync(self._file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            self._temporary.chmod(0o666 & ~umask)
            self._file.close()
            self._temporary.replace(self.path)
        except OSError as e:
            raise self._failed(e) from e

    def _failed(self, error: OSError) -> GGUFError:
        return GGUFError(f"{self.path}: cannot be written: {error.strerror or error}; nothing was left behind")

    # -- what the file holds --------------------------------------------------------------------------------

    def add(self, key: str, value: Any, type_: str | None = None) -> None:
        """Set a metadata key. Types are spelled as GGUFFile.type_of does ("u32", "string", "array of f32"); without
        one it is u32, i32 or i64 for an int, f32 for a float, that of the dtype for a numpy array."""
        self.metadata[key] = (type_ or _type_of(value), value)

    def copy_metadata(self, source: GGUFFile) -> None:
        """All keys of an open file, but those that say how it was split and aligned."""
        for key, value in source.metadata.items():
            if not key.startswith("split.") and key != "general.alignment":
                self.add(key, value, source.type_of(key))

    def add_tensor(self, name: str, shape: Sequence[int], type_: TypeInfo) -> None:
        """Announce a tensor; shape in GGUF's order."""
        if name in self.tensors:
            raise GGUFError(f"{self.path}: tensor {show(name)} would be there twice")
        if shape[0] % type_.block:
            raise GGUFError(
                f"{self.path}: tensor {show(name)} has rows of {shape[0]} elements, no multiple of {type_.name}'s "
                f"{type_.block}"
            )
        self.tensors[name] = NewTensor(name, tuple(shape), type_)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors announced, padding included."""
        return sum(-(-t.nbytes // self.alignment) * self.alignment for t in self.tensors.values())

    # -- bytes ----------------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        """The next bytes of the tensors, in the order announced: anything with a contiguous buffer. A tensor may
        come in any number of pieces; a piece belongs to one tensor."""
        if self._left is None:
            self._header()
        view = memoryview(data).cast("B")
        if not self._rest:
            assert self._left is not None
            tensor = next(self._left, None)
            if tensor is None:
                raise ValueError(f"{self.path}: more data than tensors")
            self._rest = tensor.nbytes
        if len(view) > self._rest:
            raise ValueError(f"{self.path}: {len(view)} bytes for a tensor that lacks {self._rest}")
        self._put(view)
        self._rest -= len(view)
        if not self._rest:
            self._pad()

    def _put(self, view: memoryview | bytes) -> None:
        assert self._file is not None
        view = memoryview(view)
        self._at += len(view)
        while view:
            try:
                view = view[self._file.write(view[:_PIECE]) :]
            except OSError as e:
                raise self._failed(e) from e

    def _pad(self) -> None:
        self._put(bytes(-self._at % self.alignment))

    def _header(self) -> None:
        """Everything before the first tensor's bytes."""
        free = shutil.disk_usage(self.path.parent).free
        if self.nbytes > free:
            raise GGUFError(
                f"{self.path}: needs {self.nbytes / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free there: make "
                "room or write to another disk"
            )
        if self.alignment != DEFAULT_ALIGNMENT:
            self.add("general.alignment", self.alignment, "u32")
        out = bytearray(b"GGUF" + struct.pack("<IQQ", VERSION, len(self.tensors), len(self.metadata)))
        for key, (type_, value) in self.metadata.items():
            out += _string(key)
            out += struct.pack("<I", ARRAY if type_.startswith("array of ") else self._id(key, type_))
            out += self._value(key, type_, value)
        offset = 0
        for t in self.tensors.values():
            out += _string(t.name) + struct.pack(f"<I{len(t.shape)}QIQ", len(t.shape), *t.shape, t.type.id, offset)
            offset += -(-t.nbytes // self.alignment) * self.alignment
        self._left = iter(self.tensors.values())
        self._put(bytes(out))
        self._pad()

    def _id(self, key: str, type_: str) -> int:
        if type_ not in _IDS:
            raise GGUFError(f"{self.path}: key {show(key)} cannot be written as {type_!r}")
        return _IDS[type_]

    def _value(self, key: str, type_: str, value: Any) -> bytes:
        """A value without its type's id (an array's begins with that of its elements)."""
        if type_.startswith("array of "):
            of = type_[len("array of ") :]
            if of.startswith("array"):
                if of == "array of arrays":
                    raise GGUFError(f"{self.path}: key {show(key)} has arrays of different types in an array")
                head, parts = ARRAY, [self._value(key, of, v) for v in value]
            elif of == "string":
                head, parts = STRING, [_string(v) for v in value]
            else:
                head = self._id(key, of)
                parts = [np.ascontiguousarray(value, NUMBERS[head][1]).tobytes()]
            return struct.pack("<IQ", head, len(value)) + b"".join(parts)
        if type_ == "string":
            return _string(value)
        try:
            return np.array(value, NUMBERS[self._id(key, type_)][1]).tobytes()
        except (OverflowError, ValueError, TypeError) as e:
            raise GGUFError(f"{self.path}: key {show(key)} cannot be {value!r}: {e}") from e


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _type_of(value: Any) -> str:
    """The GGUF type of a Python value, as a file of llama.cpp would have it."""
    if isinstance(value, str):
        return "string"
    if isinstance(value, (bool, np.bool_)):
        return NUMBERS[BOOL][0]
    if isinstance(value, (int, np.integer)):
        return "u32" if 0 <= value < 1 << 32 else "i32" if -(1 << 31) <= value < 0 else "i64"
    if isinstance(value, (float, np.floating)):
        return "f32"
    if isinstance(value, np.ndarray):
        names = {dtype: name for name, dtype in NUMBERS.values() if name != "bool"} | {np.dtype(bool): "bool"}
        return f"array of {names[value.dtype]}"
    if value and isinstance(value, (list, tuple)):
        kinds = {_type_of(v) for v in value}
        if kinds == {"u32"} or kinds == {"u32", "i32"}:
            kinds = {"i32"}
        if len(kinds) == 1:
            return f"array of {kinds.pop()}"
    raise GGUFError(f"there is no GGUF type for {value!r}")
