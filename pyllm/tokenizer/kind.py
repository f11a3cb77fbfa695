"""What a kind of tokenizer provides, and what their calls into C have in common."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np

from .._lib import ffi
from ..errors import TokenizerError
from .vocab import BYTE_SPELLING, TokenType, Vocab

SPACE: Final = "\u2581"  # how a token spells a space, other than in byte-level BPE


class Kind(Protocol):
    """A model kind: how text without special tokens becomes ids, and which bytes a token stands for.

    The constructor raises TokenizerError for a vocabulary that does not fit. Instances are not changed by
    use: several threads may call one.
    """

    add_bos: bool  # these two where the file does not say
    add_eos: bool
    default_special: dict[str, int]  # ids where the file does not say
    space_prefix: bool  # encode puts a space before text at the start and after a special token

    def __init__(self, vocab: Vocab) -> None: ...

    def encode(self, text: str, after_special: bool) -> list[int]:
        """Ids of text that has no lone surrogates; after_special: at the start or after a special token."""

    def token_bytes(self, id: int) -> bytes:
        """The bytes that an ordinary token stands for (not one that is recognized in the raw text)."""

    def produces(self, id: int) -> bool:
        """Whether merging can end in this token, of type NORMAL: then it is a piece of plain text."""


def seed() -> int:
    """A random key for the hash tables of a handle."""
    return int.from_bytes(os.urandom(8), "little")


def byte_tokens(vocab: Vocab) -> tuple[dict[int, int], np.ndarray[tuple[int], np.dtype[np.int32]]]:
    """The bytes that tokens of type BYTE stand for, and the token of each byte [256], or -1."""
    byte_of: dict[int, int] = {}
    byte_id = np.full(256, -1, np.int32)
    for id in np.flatnonzero(vocab.types == TokenType.BYTE).tolist():
        match = BYTE_SPELLING.fullmatch(vocab.tokens[id])
        if not match:
            raise TokenizerError(f"token {id}, {vocab.tokens[id]!r:.60}, is of type byte, but not spelled <0x..>")
        byte_of[id] = byte = int(match[1], 16)
        if byte_id[byte] < 0:
            byte_id[byte] = id
    return byte_of, byte_id


def buffer(array: bytes | np.ndarray[Any, Any], type_: str) -> Any:
    """The memory of bytes or of a contiguous array as a C pointer, valid while the array lives."""
    return ffi.from_buffer(type_, array)


def pack(texts: Sequence[str]) -> tuple[bytes, np.ndarray[Any, np.dtype[np.int64]]]:
    """The texts as one UTF-8 buffer, and offsets [n+1] into it."""
    data = "".join(texts).encode()
    offsets = np.zeros(len(texts) + 1, np.int64)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    if int(lengths.sum()) != len(data):
        lengths = np.fromiter(map(len, map(str.encode, texts)), np.int64, len(texts))
    np.cumsum(lengths, out=offsets[1:])
    return data, offsets
