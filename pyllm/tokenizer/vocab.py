"""The vocabulary as the GGUF file has it, checked for what every kind of tokenizer relies on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, Final, TypeVar

import numpy as np

from ..errors import TokenizerError

PREFIX: Final = "tokenizer.ggml."
T = TypeVar("T")
Int32Array = np.ndarray[Any, np.dtype[np.int32]]
Float32Array = np.ndarray[Any, np.dtype[np.float32]]

# What the file may name, and under which keys (the later ones are deprecated spellings).
SPECIAL_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "bos": ("bos_token_id",),
    "eos": ("eos_token_id",),
    "eot": ("eot_token_id",),
    "eom": ("eom_token_id",),
    "unk": ("unknown_token_id",),
    "sep": ("seperator_token_id",),
    "pad": ("padding_token_id",),
    "mask": ("mask_token_id",),
    "cls": ("cls_token_id",),
    "fim_pre": ("fim_pre_token_id", "prefix_token_id"),
    "fim_suf": ("fim_suf_token_id", "suffix_token_id"),
    "fim_mid": ("fim_mid_token_id", "middle_token_id"),
    "fim_pad": ("fim_pad_token_id",),
    "fim_rep": ("fim_rep_token_id",),
    "fim_sep": ("fim_sep_token_id",),
}
BYTE_SPELLING: Final = re.compile("<0x([0-9A-Fa-f]{2})>")  # of tokens of type BYTE
_NO_TOKEN: Final = (-1, 0xFFFFFFFF)  # how some converters write that there is none


class TokenType(IntEnum):
    """tokenizer.ggml.token_type: SentencePiece's numbers."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass
class Vocab:
    """A vocabulary of n tokens. Nothing in it is out of range, missing or there twice."""

    model: str
    pre: str
    name: str  # general.name
    tokens: list[str]  # [n] as the file spells them
    types: Int32Array  # [n] TokenType
    scores: Float32Array | None  # [n]
    merges: list[str] | None
    special: dict[str, int]  # names of SPECIAL_KEYS to ids
    add_bos: bool | None  # None: the file does not say
    add_eos: bool | None
    add_space_prefix: bool | None
    remove_extra_whitespaces: bool | None
    lowercase: bool | None  # of the text, before anything else
    strip_accents: bool | None
    charsmap: bytes | None  # SentencePiece's compiled table of replacements

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def ids(self) -> dict[str, int]:
        """The reverse of tokens, without empty spellings; `del vocab.ids` frees it until it is wanted again."""
        ids = dict(zip(self.tokens, range(len(self.tokens)), strict=True))
        ids.pop("", None)
        return ids

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Vocab:
        """Read the tokenizer.ggml.* keys; TokenizerError for what is missing or inconsistent."""
        model = _text(metadata, PREFIX + "model", None)
        if model is None:
            raise TokenizerError("the file has no tokenizer: tokenizer.ggml.model is missing")
        tokens = _strings(metadata, PREFIX + "tokens")
        if not tokens:
            raise TokenizerError("the vocabulary is empty: tokenizer.ggml.tokens is missing or has no tokens")
        n = len(tokens)
        ids = dict(zip(tokens, range(n), strict=True))
        n_empty = tokens.count("") if "" in ids else 0
        if len(ids) - bool(n_empty) + n_empty != n:
            twice = next(t for i, t in enumerate(tokens) if t and ids[t] != i)
            raise TokenizerError(f"the vocabulary has the token {twice!r:.60} twice")
        ids.pop("", None)
        types = _numbers(metadata, PREFIX + "token_type", n, np.int32)
        if types is None:
            types = np.full(n, TokenType.NORMAL, np.int32)
        elif types.min() < 0 or types.max() > max(TokenType):
            at = int(np.argmax((types < 0) | (types > max(TokenType))))
            raise TokenizerError(f"token {at} has the unknown type {types[at]} in tokenizer.ggml.token_type")
        special = {}
        for name, keys in SPECIAL_KEYS.items():
            for key in keys:
                if name not in special and (id := _special_id(metadata, PREFIX + key, n)) is not None:
                    special[name] = id
        vocab = cls(
            model=model,
            pre=_text(metadata, PREFIX + "pre", "default"),
            name=_text(metadata, "general.name", ""),
            tokens=tokens,
            types=types,
            scores=_numbers(metadata, PREFIX + "scores", n, np.float32),
            merges=_strings(metadata, PREFIX + "merges"),
            special=special,
            add_bos=_flag(metadata, PREFIX + "add_bos_token"),
            add_eos=_flag(metadata, PREFIX + "add_eos_token"),
            add_space_prefix=_flag(metadata, PREFIX + "add_space_prefix"),
            remove_extra_whitespaces=_flag(metadata, PREFIX + "remove_extra_whitespaces"),
            lowercase=_flag(metadata, PREFIX + "normalizer.lowercase"),
            strip_accents=_flag(metadata, PREFIX + "normalizer.strip_accents"),
            charsmap=_bytes(metadata, PREFIX + "precompiled_charsmap"),
        )
        vocab.ids = ids
        return vocab


def _wrong(key: str, expected: str, value: object) -> TokenizerError:
    return TokenizerError(f"{key} is {type(value).__name__} {value!r:.60}, where {expected} is expected")


def _text(metadata: Mapping[str, Any], key: str, default: T) -> str | T:
    if key not in metadata:
        return default
    value = metadata[key]
    if not isinstance(value, str):
        raise _wrong(key, "a string", value)
    return value


def _strings(metadata: Mapping[str, Any], key: str) -> list[str] | None:
    value = metadata.get(key)
    if value is not None and not (isinstance(value, list) and all(isinstance(v, str) for v in value[:1])):
        if isinstance(value, np.ndarray) and not value.size:
            return []
        raise _wrong(key, "an array of strings", value)
    return value


def _numbers(metadata: Mapping[str, Any], key: str, n: int, dtype: type[Any]) -> Any:
    value = metadata.get(key)
    if value is None:
        return None
    if not isinstance(value, np.ndarray) or value.dtype.kind not in ("iu" if dtype is np.int32 else "iuf"):
        raise _wrong(key, "an array of numbers", value)
    if len(value) != n:
        raise TokenizerError(f"{key} has {len(value)} elements for {n} tokens")
    if dtype is np.int32 and value.size and (value.min() < -(2**31) or value.max() >= 2**31):
        raise TokenizerError(f"{key} has numbers out of range")
    return np.array(value, dtype)


def _bytes(metadata: Mapping[str, Any], key: str) -> bytes | None:
    value = metadata.get(key)
    if value is not None and not (isinstance(value, np.ndarray) and value.dtype in (np.uint8, np.int8)):
        raise _wrong(key, "an array of bytes", value)
    return None if value is None else value.tobytes()


def _special_id(metadata: Mapping[str, Any], key: str, n: int) -> int | None:
    value = metadata.get(key)
    if value is None or (type(value) is int and value in _NO_TOKEN):
        return None
    if type(value) is not int:
        raise _wrong(key, "a token id", value)
    if not 0 <= value < n:
        raise TokenizerError(f"{key} is {value}, but the vocabulary has {n} tokens")
    return value


def _flag(metadata: Mapping[str, Any], key: str) -> bool | None:
    value = metadata.get(key)
    if value is not None and not isinstance(value, bool):
        raise _wrong(key, "true or false", value)
    return value
