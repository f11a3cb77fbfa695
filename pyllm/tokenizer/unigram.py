"""SentencePiece unigram (tokenizer.ggml.model "t5"; Kudo 2018), in C."""

from __future__ import annotations

import numpy as np

from .._lib import ffi, lib
from ..errors import TokenizerError
from .kind import buffer, pack, seed
from .scored import ByteIds, ScoredVocab, Scores
from .vocab import TokenType, Vocab


class Unigram(ScoredVocab):
    """See Kind."""

    def __init__(self, vocab: Vocab) -> None:
        self.add_bos = False
        self.add_eos = True
        self._merge = vocab.remove_extra_whitespaces is True
        super().__init__(vocab, "t5", {"eos": 1, "unk": 2, "pad": 0})

    @staticmethod
    def _build(vocab: Vocab, scores: Scores, byte_id: ByteIds, unk: int) -> object:
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
        if rc == lib.PL_E_VOCAB and bad[0] < 0:
            raise TokenizerError("tokenizer.ggml.precompiled_charsmap is not a table of replacements")
        ScoredVocab._check(rc, vocab, bad[0])
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
        return self._ids(lib.pl_ugm_encode, normal, n)

    def produces(self, id: int) -> bool:
        return int(self._vocab.types[id]) == TokenType.NORMAL
