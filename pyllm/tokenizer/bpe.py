"""Byte-level BPE (tokenizer.ggml.model "gpt2"; Radford et al. 2019): a pre-tokenizer, then merges in C."""

from __future__ import annotations

import unicodedata
from typing import Any, Final

import numpy as np

from .._lib import ffi, lib
from ..errors import TokenizerError
from . import pre
from .kind import buffer, pack, seed
from .vocab import BYTE_SPELLING, TokenType, Vocab
from .words import WordEncoder


def _alphabet() -> dict[str, int]:
    """GPT-2's byte alphabet: the character that spells each byte in tokenizer.ggml.tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


BYTE_OF: Final = _alphabet()


class ByteBPE:
    """See Kind."""

    def __init__(self, vocab: Vocab) -> None:
        found = pre.find(vocab.pre)
        if found is None:
            raise TokenizerError(
                f"unknown pre-tokenizer {vocab.pre!r} (tokenizer.ggml.pre); supported: {', '.join(pre.names())}"
            )
        if vocab.merges is None:
            raise TokenizerError("tokenizer.ggml.merges is missing, and tokenizer.ggml.model gpt2 needs it")
        self.add_bos = found.add_bos
        self.add_eos = False
        self.default_special: dict[str, int] = {}
        self.space_prefix = False
        self._form: Any = found.normalize
        self._vocab = vocab
        self._words = found.compile()
        self._encoder = WordEncoder(lib.pl_bpe_encode, self._build(vocab, found.whole_words))

    @staticmethod
    def _build(vocab: Vocab, whole_words: bool) -> object:
        merges = vocab.merges or []
        tokens, token_off = pack(vocab.tokens)
        spelled, merge_off = pack(merges)
        use = (vocab.types != TokenType.CONTROL) & (vocab.types != TokenType.UNKNOWN)
        out, bad = ffi.new("pl_bpe **"), ffi.new("int32_t *")
        rc = lib.pl_bpe_new(
            buffer(tokens, "uint8_t[]"),
            buffer(token_off, "int64_t[]"),
            buffer(use.astype(np.uint8), "uint8_t[]"),
            len(vocab),
            buffer(spelled, "uint8_t[]"),
            buffer(merge_off, "int64_t[]"),
            len(merges),
            whole_words,
            seed(),
            out,
            bad,
        )
        if rc == lib.PL_E_MEM:
            raise MemoryError("no memory for the tokenizer")
        at = bad[0] - len(vocab)
        if rc == lib.PL_E_VOCAB:
            raise TokenizerError(
                f"merge {at} of tokenizer.ggml.merges, {merges[at]!r:.100}, does not join two tokens to one"
            )
        if rc == lib.PL_E_DUP and at >= 0:
            raise TokenizerError(f"merge {at} of tokenizer.ggml.merges, {merges[at]!r:.100}, is there twice")
        if rc:
            raise TokenizerError(f"the vocabulary is inconsistent (error {rc} at {bad[0]})")
        return ffi.gc(out[0], lib.pl_bpe_free)

    def encode(self, text: str, after_special: bool) -> list[int]:
        if self._form and not unicodedata.is_normalized(self._form, text):
            text = unicodedata.normalize(self._form, text)
        return self._encoder.encode(self._words(text))

    def token_bytes(self, id: int) -> bytes:
        text = self._vocab.tokens[id]
        if (match := BYTE_SPELLING.fullmatch(text)) and self._vocab.types[id] == TokenType.BYTE:
            return bytes([int(match[1], 16)])
        try:
            return bytes([BYTE_OF[c] for c in text])
        except KeyError:  # spelled in plain text after all
            return text.encode()

    def produces(self, id: int) -> bool:
        token = self._vocab.tokens[id]
        return any(len(m) == len(token) + 1 and m.replace(" ", "") == token for m in self._vocab.merges or ())
