"""What SentencePiece's two kinds of vocabularies share: scores, tokens of single bytes, and the way to C and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._lib import lib
from ..errors import TokenizerError
from .kind import SPACE, buffer, byte_tokens
from .vocab import Vocab

Scores = np.ndarray[tuple[int], np.dtype[np.float32]]  # [tokens]
ByteIds = np.ndarray[tuple[int], np.dtype[np.int32]]  # [256] the token of each byte, or -1


class ScoredVocab:
    """The base of their classes. model: the value of tokenizer.ggml.model; default_special: ids by role."""

    def __init__(self, vocab: Vocab, model: str, default_special: dict[str, int]) -> None:
        if vocab.scores is None:
            raise TokenizerError(f"tokenizer.ggml.scores is missing, and tokenizer.ggml.model {model} needs it")
        self.default_special = {role: id for role, id in default_special.items() if id < len(vocab)}
        self.space_prefix = vocab.add_space_prefix is not False
        self._vocab = vocab
        self._byte_of, byte_id = byte_tokens(vocab)
        unk = vocab.special.get("unk", self.default_special.get("unk", -1))
        if unk < 0 and (byte_id < 0).any():
            raise TokenizerError("the vocabulary has neither a token for every byte nor one for unknown text")
        self._handle = self._build(vocab, vocab.scores, byte_id, unk)

    @staticmethod
    def _build(vocab: Vocab, scores: Scores, byte_id: ByteIds, unk: int) -> object:
        """The C library's handle."""
        raise NotImplementedError

    @staticmethod
    def _check(rc: int, vocab: Vocab, bad: int) -> None:
        """What the C library says of a vocabulary, and the token that it is about."""
        if rc == lib.PL_E_MEM:
            raise MemoryError("no memory for the tokenizer")
        if rc == lib.PL_E_VOCAB:
            raise TokenizerError(f"the score of token {bad}, {vocab.tokens[bad]!r:.60}, is not a number")
        if rc:
            raise TokenizerError(f"the vocabulary is inconsistent (error {rc} at {bad})")

    def _ids(self, encode: Callable[..., int], data: bytes | np.ndarray[Any, Any], n: int) -> list[int]:
        """The ids of n bytes by a C function, which gives no more ids than bytes."""
        ids = np.empty(max(n, 1), np.int32)
        got = encode(self._handle, buffer(data, "uint8_t[]"), n, buffer(ids, "int32_t[]"), len(ids))
        if got == lib.PL_E_MEM:
            raise MemoryError("no memory to tokenize the text")
        if got < 0:
            raise TokenizerError(f"the text is too long to tokenize at once: {n} bytes, 2 GiB is the limit")
        result: list[int] = ids[:got].tolist()
        return result

    def token_bytes(self, id: int) -> bytes:
        if id in self._byte_of:
            return bytes([self._byte_of[id]])
        return self._vocab.tokens[id].replace(SPACE, " ").encode()
