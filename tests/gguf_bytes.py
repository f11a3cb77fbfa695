"""Writes GGUF files byte by byte, right ones and wrong ones: nothing is checked here."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# value type ids of the GGUF specification
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {
    U8: "B",
    I8: "b",
    U16: "H",
    I16: "h",
    U32: "I",
    I32: "i",
    F32: "f",
    BOOL: "B",
    U64: "Q",
    I64: "q",
    F64: "d",
}


def number(type_: int, value: float) -> bytes:
    return struct.pack("<" + FORMATS[type_], value)


def text(s: str | bytes, length: int | None = None) -> bytes:
    """A string: its length (or a wrong one), its bytes."""
    raw = s.encode() if isinstance(s, str) else s
    return number(U64, len(raw) if length is None else length) + raw


def scalar(type_: int, value: float | str | bytes) -> bytes:
    """A typed value."""
    body = text(value) if isinstance(value, (str, bytes)) else number(type_, value)
    return number(U32, type_) + body


def array_body(type_: int, values: Sequence[float | str | bytes], count: int | None = None) -> bytes:
    """An array without its ARRAY tag: element type, count (or a wrong one), elements (arrays: bytes)."""
    head = number(U32, type_) + number(U64, len(values) if count is None else count)
    if type_ == ARRAY:
        return head + b"".join(v for v in values if isinstance(v, bytes))
    return head + b"".join(text(v) if isinstance(v, (str, bytes)) else number(type_, v) for v in values)


def array(type_: int, values: Sequence[float | str | bytes], count: int | None = None) -> bytes:
    """A typed array."""
    return number(U32, ARRAY) + array_body(type_, values, count)


@dataclass
class Tensor:
    """A tensor info; offset None: after the tensor before it."""

    name: str | bytes
    shape: Sequence[int]
    data: bytes = b""
    type: int = 0
    offset: int | None = None
    n_dims: int | None = None


def file(
    pairs: Iterable[tuple[str | bytes, bytes]] = (),
    tensors: Iterable[Tensor] = (),
    *,
    version: int = 3,
    n_pairs: int | None = None,
    n_tensors: int | None = None,
    alignment: int = 32,
    magic: bytes = b"GGUF",
    order: str = "<",
) -> bytes:
    """A file of these pairs (key, typed value) and tensors, padded; the counts may be wrong ones."""
    pairs, tensors = list(pairs), list(tensors)
    out = bytearray(magic)
    out += struct.pack(
        order + "IQQ",
        version,
        len(tensors) if n_tensors is None else n_tensors,
        len(pairs) if n_pairs is None else n_pairs,
    )
    for key, value in pairs:
        out += text(key) + value
    data = bytearray()
    for t in tensors:
        out += text(t.name) + number(U32, len(t.shape) if t.n_dims is None else t.n_dims)
        out += struct.pack(f"<{len(t.shape)}Q", *t.shape)
        out += number(U32, t.type) + number(U64, len(data) if t.offset is None else t.offset)
        data += t.data
        data += bytes(-len(data) % alignment)
    if tensors:
        out += bytes(-len(out) % alignment)
    return bytes(out + data)
