"""SentencePiece unigram (tokenizer.ggml.model "t5"; Kudo 2018), in C."""

from __future__ import annotations

import numpy as np

from .._lib import ffi, lib
from ..errors import TokenizerError
from .kind import SPACE, buffer, byte_tokens, pack, seed
from .vocab import TokenType, Vocab


class Unigram:
    """See Kind."""

    def __init__(self, vocab: Vocab) -> None:
        if vocab.scores is None:
            raise TokenizerError("tokenizer.ggml.scores is missing, and tokenizer.ggml.model t5 needs it")
        self.add_bos = False
        self.add_eos = True
        n = len(vocab)
        self.default_special = {role: id for role, id in (("eos", 1), ("unk", 2), ("pad", 0)) if id < n}
        self.space_prefix = vocab.add_space_prefix is not False
        self._merge = vocab.remove_extra_whitespaces is True
        self._vocab = vocab
        self._byte_of, byte_id = byte_tokens(vocab)
        unk = vocab.special.get("unk", self.default_special.get("unk", -1))
        if unk < 0 and (byte_id < 0).any():
            raise TokenizerError("the vocabulary has neither a token for every byte nor one for unknown text")
        self._handle = self._build(vocab, vocab.scores, byte_id, unk)

    @staticmethod
    def _build(
        vocab: Vocab,
        scores: np.ndarray[tuple[int], np.dtype[np.float32]],
        byte_id: np.ndarray[tuple[int], np.dtype[np.int32]],
        unk: int,
    ) -> object:
        tokens, offsets = pack(vocab.tokens)
        use = ((vocab.types == TokenType.NORMAL) | (vocab.types == TokenType.UNDEFINED)).astype(np.uint8)
        charsmap = vocab.charsmap or b""
        out, bad = ffi.new("pl_ugm **"), ffi.new("int32_t *")
        rc = lib.pl_ugm_new(
            buffer(tokens, "uint8_t[]"),
            buffer(offsets, "int64_t[]"),
            buffer(use, "uint8_t[]"),
            buffer(scores, "float[]"),
            len(vocab),
            buffer(byte_id, "int32_t[]"),
            unk,
            buffer(charsmap, "uint8_t[]"),
            len(charsmap),
            seed(),
            out,
            bad,
        )
        if rc == lib.PL_E_MEM:
            raise MemoryError("no memory for the tokenizer")
        if rc == lib.PL_E_VOCAB and bad[0] >= 0:
            raise TokenizerError(f"the score of token {bad[0]}, {vocab.tokens[bad[0]]!r:.60}, is not a number")
        if rc == lib.PL_E_VOCAB:
            raise TokenizerError("tokenizer.ggml.precompiled_charsmap is not a table of replacements")
        if rc:
            raise TokenizerError(f"the vocabulary is inconsistent (error {rc} at {bad[0]})")
        return ffi.gc(out[0], lib.pl_ugm_free)

    def encode(self, text: str, after_special: bool) -> list[int]:
        data = text.encode()
        normal = np.empty(2 * len(data) + 64, np.uint8)
        prefix = self.space_prefix and after_special
        while True:
            n = lib.pl_ugm_normalize(
                self._handle,
                buffer(data, "uint8_t[]"),
                len(data),
                prefix,
                self._merge,
                buffer(normal, "uint8_t[]"),
                len(normal),
            )
            if n <= len(normal):
                break
            normal = np.empty(n, np.uint8)
        ids = np.empty(max(n, 1), np.int32)
        got = lib.pl_ugm_encode(self._handle, buffer(normal, "uint8_t[]"), n, buffer(ids, "int32_t[]"), len(ids))
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

    def produces(self, id: int) -> bool:
        return int(self._vocab.types[id]) == TokenType.NORMAL
