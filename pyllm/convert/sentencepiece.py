"""Reads SentencePiece's tokenizer.model: what GGUF keeps of its ModelProto, out of the protobuf wire format.

Field numbers are those of sentencepiece_model.proto (github.com/google/sentencepiece).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..errors import ConvertError

UNIGRAM: Final = 1
BPE: Final = 2
MAX_BYTES: Final = 256 << 20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass
class SentencePieceModel:
    """pieces: (spelling, score, type), types as in tokenizer.ggml.token_type."""

    pieces: list[tuple[str, float, int]] = field(default_factory=list)
    kind: int = UNIGRAM
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    charsmap: bytes = b""  # normalizer_spec.precompiled_charsmap
    special: dict[str, int] = field(default_factory=dict)  # unk, bos, eos, pad

    @classmethod
    def read(cls, path: Path) -> SentencePieceModel:
        """ConvertError for what is no such file."""
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ConvertError(f"{path}: is too large to be a SentencePiece model")
            model = cls()
            model._parse(path.read_bytes())
        except (ValueError, IndexError, struct.error) as e:
            raise ConvertError(f"{path}: is no SentencePiece model: {e}") from e
        if not model.pieces:
            raise ConvertError(f"{path}: is no SentencePiece model: it has no pieces")
        return model

    def _parse(self, data: bytes) -> None:
        self.special = {"unk": 0, "bos": 1, "eos": 2}
        for number, value in _fields(data):
            if number == 1:
                self.pieces.append(_piece(_as_bytes(value)))
            elif number == 2:
                self._trainer(_as_bytes(value))
            elif number == 3:
                for inner, v in _fields(_as_bytes(value)):
                    if inner == 2:
                        self.charsmap = _as_bytes(v)
                    elif inner == 3:
                        self.add_dummy_prefix = bool(v)
                    elif inner == 4:
                        self.remove_extra_whitespaces = bool(v)

    def _trainer(self, data: bytes) -> None:
        for number, value in _fields(data):
            if number == 3 and isinstance(value, int):
                self.kind = value
            name = {40: "unk", 41: "bos", 42: "eos", 43: "pad"}.get(number)
            if name and isinstance(value, int):
                self.special[name] = value if value < 1 << 31 else -1
        self.special = {name: id for name, id in self.special.items() if id >= 0}


def _piece(data: bytes) -> tuple[str, float, int]:
    text, score, kind = b"", 0.0, 1
    for number, value in _fields(data):
        if number == 1:
            text = _as_bytes(value)
        elif number == 2:
            (score,) = struct.unpack("<f", _as_bytes(value))
        elif number == 3 and isinstance(value, int):
            kind = value
    if not 1 <= kind <= 6:
        raise ValueError(f"a piece of the unknown type {kind}")
    return text.decode(), score, kind


def _as_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes are expected")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: (number, value); fixed numbers are given as their bytes."""
    pos = 0
    while pos < len(data):
        tag, pos = _varint(data, pos)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, pos = _varint(data, pos)
            yield number, value
            continue
        if wire == _BYTES:
            size, pos = _varint(data, pos)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire} at byte {pos}")
        if size > len(data) - pos:
            raise ValueError(f"{size} bytes at byte {pos} of {len(data)}")
        yield number, data[pos : pos + size]
        pos += size


def _varint(data: bytes, pos: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, pos
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
