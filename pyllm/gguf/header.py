"""Maps one GGUF file and parses its header; nothing in the file is believed before it is checked.

The layout is that of the GGUF specification (ggml, docs/gguf.md), versions 2 and 3, little endian: magic,
version, two counts, the metadata pairs, the tensor infos, padding to the alignment, then the tensors' bytes.
Counts and lengths are compared with the bytes that are left before anything is allocated for them, so that no
number in the file causes an allocation of more than twice its size. What Python adds per object is bounded by
the limits below: some 16 MB for keys, tensors and arrays in arrays, and about 60 bytes per string.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from .._lib import ffi, lib
from ..errors import GGUFError

DEFAULT_ALIGNMENT: Final = 32
MAX_DIMS: Final = 4
# Far above any real model; a file with more is refused before it costs memory and time.
MAX_KEYS: Final = 16_384
MAX_TENSORS: Final = 32_768
MAX_STRINGS: Final = 4_194_304  # strings in all arrays together
MAX_ARRAYS: Final = 4_096  # arrays inside arrays, all together
MAX_DEPTH: Final = 4  # levels of arrays
LONG_STRING: Final = 1 << 20  # bytes; the decoded size of a longer string is checked first

_MAX_ELEMENTS: Final = (1 << 63) - 1
_U32: Final = struct.Struct("<I").unpack_from
_U64: Final = struct.Struct("<Q").unpack_from
BOOL: Final = 7
STRING: Final = 8
ARRAY: Final = 9
# GGUF value type -> its name, and its numpy dtype
NUMBERS: Final[dict[int, tuple[str, np.dtype[Any]]]] = {
    0: ("u8", np.dtype("u1")),
    1: ("i8", np.dtype("i1")),
    2: ("u16", np.dtype("<u2")),
    3: ("i16", np.dtype("<i2")),
    4: ("u32", np.dtype("<u4")),
    5: ("i32", np.dtype("<i4")),
    6: ("f32", np.dtype("<f4")),
    BOOL: ("bool", np.dtype("u1")),
    10: ("u64", np.dtype("<u8")),
    11: ("i64", np.dtype("<i8")),
    12: ("f64", np.dtype("<f8")),
}
_OLD: Final = "is a GGML file from before GGUF: convert the model to GGUF"
_WEB: Final = "is a web page and not a GGUF file: the download went wrong"
# What people have in place of a GGUF file: its first bytes, and what to say
_OTHERS: Final = (
    (b"lmgg", _OLD),
    (b"fmgg", _OLD),
    (b"tjgg", _OLD),
    (b"FUGG", "is a GGUF file of the other byte order: convert it to little endian"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the model itself: fetch it with `git lfs pull`"),
    (b"<!", _WEB),
    (b"<h", _WEB),
    (b"PK\3\4", "is a ZIP archive, not a GGUF file: unpack it first"),
)


@dataclass(frozen=True)
class TypeInfo:
    """A tensor type: elements and bytes per block, activations of its matmul (-1: no kernel, 0: F32, 1: Q8)."""

    name: str
    id: int
    block: int
    bytes: int
    act: int


@cache
def tensor_types() -> Mapping[int, TypeInfo]:
    """The tensor types that the library knows, by GGUF type id."""
    types: dict[int, TypeInfo] = {}
    while (t := lib.pl_type_at(len(types))) != ffi.NULL:
        types[t.id] = TypeInfo(ffi.string(t.name).decode(), t.id, t.block, t.bytes, t.act)
    return MappingProxyType(types)


def show(name: str) -> str:
    """A name out of a file as error messages quote it: escaped, and not longer than a line."""
    return repr(name if len(name) <= 64 else name[:61] + "...")


def map_file(path: Path) -> tuple[mmap.mmap, int]:
    """Map a regular, non-empty file read-only: the map and the size in bytes."""
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise GGUFError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as e:
        what = "is a directory, not a GGUF file" if path.is_dir() else f"cannot be opened: {e}"
        raise GGUFError(f"{path}: {what}") from e
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            raise GGUFError(f"{path}: is a directory, not a GGUF file")
        if not stat.S_ISREG(status.st_mode):
            raise GGUFError(f"{path}: is not a regular file and cannot be mapped")
        if status.st_size == 0:
            raise GGUFError(f"{path}: is empty")
        return mmap.mmap(fd, status.st_size, access=mmap.ACCESS_READ), status.st_size
    except (OSError, ValueError) as e:
        raise GGUFError(f"{path}: cannot be mapped into memory: {e}") from e
    finally:
        os.close(fd)


class Part:
    """One mapped GGUF file and what its header says.

    metadata: values by key. types: value types by key ("u32", "array of string"). tensors: by name, in the
    file's order, (shape, type, first byte, number of bytes). map is None once closed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.map: mmap.mmap | None
        self.map, self.size = map_file(path)
        self.metadata: dict[str, Any] = {}
        self.types: dict[str, str] = {}
        self.tensors: dict[str, tuple[tuple[int, ...], TypeInfo, int, int]] = {}
        self.version = 0
        self.alignment = DEFAULT_ALIGNMENT
        try:
            _Parser(self, self.map).header()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unmap; while arrays that view the mapping are alive it stays, and goes with the last of them."""
        mapping, self.map = self.map, None
        if mapping is not None:
            with contextlib.suppress(BufferError):  # views exist: they own the mapping from now on
                mapping.close()


class _Parser:
    """A position in the mapping, and the header's grammar: one method per production."""

    def __init__(self, part: Part, mapping: mmap.mmap) -> None:
        self.part = part
        self.map = mapping
        self.size = part.size
        self.pos = 0
        self.strings = MAX_STRINGS
        self.arrays = MAX_ARRAYS

    def error(self, message: str) -> GGUFError:
        return GGUFError(f"{self.part.path}: {message}")

    # -- fields ---------------------------------------------------------------------------------------------

    def need(self, n: int, what: str) -> int:
        """Claim n bytes: their position. Every read passes here."""
        pos = self.pos
        if n > self.size - pos:
            raise self.error(f"{what} at byte {pos} takes {n} bytes, but the file ends at byte {self.size}")
        self.pos = pos + n
        return pos

    def count(self, n: int, least: int, limit: int, what: str) -> int:
        """n, when n items of at least so many bytes each can lie ahead and are not over the limit."""
        if n * least > self.size - self.pos:
            raise self.error(f"claims {n} {what}, but the file ends {self.size - self.pos} bytes further on")
        if n > limit:
            raise self.error(f"claims {n} {what}, more than pyllm's limit of {limit}")
        return n

    def u32(self, what: str) -> int:
        return int(_U32(self.map, self.need(4, what))[0])

    def u64(self, what: str) -> int:
        return int(_U64(self.map, self.need(8, what))[0])

    def string(self, what: str) -> str:
        n = self.u64(f"the length of {what}")
        pos = self.need(n, what)
        return self.text(pos, n, what)

    def text(self, pos: int, n: int, what: str) -> str:
        """The n bytes at pos, which lie in the file, decoded."""
        if n > LONG_STRING:
            # CPython stores every character in 1, 2 or 4 bytes, as the widest needs
            widest = int(np.frombuffer(self.map, np.uint8, n, pos).max())
            width = 4 if widest >= 0xF0 else 2 if widest >= 0xC4 else 1
            if n * width > 2 * self.size:
                raise self.error(f"{what} at byte {pos} has {n} bytes, too many for a text in a file of {self.size}")
        try:
            with memoryview(self.map) as view, view[pos : pos + n] as raw:
                return str(raw, "utf-8")
        except UnicodeDecodeError as e:
            raise self.error(f"{what} is not UTF-8: {e.reason} at byte {pos + e.start}") from None

    # -- metadata -------------------------------------------------------------------------------------------

    def value(self, type_: int, what: str, depth: int) -> tuple[Any, str]:
        """A value of this type, and the type's name."""
        if type_ in NUMBERS:
            name, dtype = NUMBERS[type_]
            pos = self.need(dtype.itemsize, what)
            v = np.frombuffer(self.map, dtype, 1, pos)[0].item()
            if type_ == BOOL:
                if v > 1:
                    raise self.error(f"{what} at byte {pos} is a bool with value {v}, neither 0 nor 1")
                v = v == 1
            return v, name
        if type_ == STRING:
            return self.string(what), "string"
        if type_ == ARRAY:
            return self.array(what, depth)
        raise self.error(f"{what} at byte {self.pos} has the unknown value type {type_}")

    def array(self, what: str, depth: int) -> tuple[Any, str]:
        """Numbers as a read-only numpy array, anything else as a list; and "array of ..."."""
        start = self.pos
        type_ = self.u32(f"the element type of {what}")
        n = self.u64(f"the element count of {what}")
        if type_ in NUMBERS:
            name, dtype = NUMBERS[type_]
            pos = self.need(n * dtype.itemsize, f"{what} with {n} elements")
            # a copy, so that the metadata outlives the mapping
            v = np.frombuffer(self.map, dtype, n, pos).copy() if n else np.empty(0, dtype)
            if type_ == BOOL:
                if n and v.max() > 1:
                    at = int(np.argmax(v > 1))
                    raise self.error(f"{what} at byte {pos + at} has a bool with value {v[at]}, neither 0 nor 1")
                v = v.view(np.bool_)
            v.flags.writeable = False
            return v, f"array of {name}"
        if type_ == STRING:
            return self.string_array(n, what), "array of string"
        if type_ != ARRAY:
            raise self.error(f"{what} at byte {start} is an array of the unknown value type {type_}")
        if depth >= MAX_DEPTH:
            raise self.error(f"{what} at byte {start} has arrays in arrays more than {MAX_DEPTH} levels deep")
        self.arrays -= self.count(n, 12, self.arrays, f"arrays in {what}")
        values = [self.array(what, depth + 1) for _ in range(n)]
        inner = {name for _, name in values}
        return [v for v, _ in values], f"array of {inner.pop()}" if len(inner) == 1 else "array of arrays"

    def string_array(self, n: int, what: str) -> list[str]:
        """n strings. This loop reads whole vocabularies and merges: it takes 0.2 us per string."""
        self.strings -= self.count(n, 8, self.strings, f"strings in {what}")
        data, end = self.map, self.pos
        strings: list[str] = []
        append = strings.append
        try:
            for _ in range(n):
                start = end + 8
                end = start + _U64(data, end)[0]
                if end - start > LONG_STRING:
                    self.pos = start
                    pos = self.need(end - start, f"string {len(strings)} of {what}")
                    append(self.text(pos, end - start, f"string {len(strings)} of {what}"))
                else:
                    append(data[start:end].decode())
        except UnicodeDecodeError as e:
            if end <= self.size:
                what = f"string {len(strings)} of {what}"
                raise self.error(f"{what} is not UTF-8: {e.reason} at byte {start + e.start}") from None
        except struct.error:  # the string before ran past the end
            pass
        if end > self.size - 8 * (n - len(strings)):
            raise self.error(f"{what} with {n} strings runs past the end of the file at byte {self.size}")
        self.pos = end
        return strings

    def pairs(self, count: int) -> None:
        """The metadata."""
        self.count(count, 13, MAX_KEYS, "metadata keys")
        metadata, types = self.part.metadata, self.part.types
        for i in range(count):
            at = self.pos
            key = self.string(f"metadata key {i}")
            if key in metadata:
                raise self.error(f"metadata key {show(key)} at byte {at} is there a second time")
            what = f"key {show(key)}"
            metadata[key], types[key] = self.value(self.u32(f"the type of {what}"), what, 1)

    # -- tensors --------------------------------------------------------------------------------------------

    def shape(self, what: str) -> tuple[int, ...]:
        """Dimensions, fastest first; a tensor without any is one element."""
        n = self.u32(f"the number of dimensions of {what}")
        if n > MAX_DIMS:
            raise self.error(f"{what} has {n} dimensions, more than {MAX_DIMS}")
        shape = tuple(self.u64(f"dimension {i} of {what}") for i in range(n)) or (1,)
        if 0 in shape:
            raise self.error(f"{what} has an empty shape {shape}")
        if math.prod(shape) > _MAX_ELEMENTS:
            raise self.error(f"{what} has more than 2^63 elements: its shape is {shape}")
        return shape

    def infos(self, count: int) -> None:
        """The tensor infos, and the checks of where their data lies."""
        self.count(count, 24, MAX_TENSORS, "tensors")
        known, alignment, tensors = tensor_types(), self.part.alignment, self.part.tensors
        for i in range(count):
            at = self.pos
            name = self.string(f"the name of tensor {i}")
            what = f"tensor {show(name)}"
            if name in tensors:
                raise self.error(f"{what} at byte {at} is there a second time")
            shape = self.shape(what)
            id_ = self.u32(f"the type of {what}")
            if id_ not in known:
                raise self.error(f"{what} has the unknown type id {id_}")
            type_ = known[id_]
            if shape[0] % type_.block:
                raise self.error(f"{what} has rows of {shape[0]} elements, no multiple of {type_.name}'s {type_.block}")
            offset = self.u64(f"the offset of {what}")
            if offset % alignment:
                raise self.error(f"{what} has offset {offset}, no multiple of the alignment {alignment}")
            tensors[name] = shape, type_, offset, math.prod(shape) // type_.block * type_.bytes
        base = -(-self.pos // alignment) * alignment
        end, before = 0, ""
        for name, (shape, type_, offset, nbytes) in sorted(tensors.items(), key=lambda item: item[1][2]):
            if base + offset + nbytes > self.size:
                raise self.error(
                    f"tensor {show(name)} takes bytes {base + offset} to {base + offset + nbytes}, "
                    f"but the file ends at byte {self.size}: it is cut short or damaged"
                )
            if offset < end:
                raise self.error(f"tensors {show(before)} and {show(name)} overlap at byte {base + offset}")
            end, before = offset + nbytes, name
            tensors[name] = shape, type_, base + offset, nbytes

    # -- file -----------------------------------------------------------------------------------------------

    def header(self) -> None:
        """The whole header, into self.part."""
        magic = self.map[:4]
        if magic != b"GGUF":
            start = self.map[:32]
            for prefix, what in _OTHERS:
                if start.startswith(prefix):
                    raise self.error(what)
            raise self.error(f"is not a GGUF file: it starts with {magic!r}, not with b'GGUF'")
        self.pos = 4
        version = self.u32("the version")
        if version & 0xFFFF == 0 and version:
            raise self.error("is a big-endian GGUF file: convert it to little endian")
        if version == 1:
            raise self.error("is a GGUF file of version 1, which is no longer in use: convert it again to version 3")
        if version not in (2, 3):
            raise self.error(f"is a GGUF file of version {version}; pyllm reads versions 2 and 3")
        self.part.version = version
        n_tensors = self.u64("the number of tensors")
        n_pairs = self.u64("the number of metadata keys")
        self.pairs(n_pairs)
        self.align()
        self.infos(n_tensors)

    def align(self) -> None:
        """general.alignment: a power of two and, as the specification has it, a multiple of 8."""
        key = "general.alignment"
        if key not in self.part.metadata:
            return
        if self.part.types[key] != "u32":
            raise self.error(f"{key} is of type {self.part.types[key]}, not u32")
        alignment = self.part.metadata[key]
        if alignment < 8 or alignment & (alignment - 1):
            raise self.error(f"{key} is {alignment}, no power of two from 8 up")
        self.part.alignment = alignment
