"""SentencePiece BPE with byte fallback (tokenizer.ggml.model "llama"; Kudo and Richardson 2018), in C."""

from __future__ import annotations

import numpy as np

from .._lib import ffi, lib
from .kind import SPACE, buffer, pack, seed
from .scored import ByteIds, ScoredVocab, Scores
from .vocab import TokenType, Vocab

_MERGED, _UNUSED = 1, 2  # pyllm.h: pl_spm_new


class SentencePieceBPE(ScoredVocab):
    """See Kind."""

    def __init__(self, vocab: Vocab) -> None:
        self.add_bos = True
        self.add_eos = False
        super().__init__(vocab, "llama", {"bos": 1, "eos": 2, "unk": 0})

    @staticmethod
    def _build(vocab: Vocab, scores: Scores, byte_id: ByteIds, unk: int) -> object:
        tokens, offsets = pack(vocab.tokens)
        use = np.zeros(len(vocab), np.uint8)
        use[(vocab.types == TokenType.NORMAL) | (vocab.types == TokenType.UNDEFINED)] = _MERGED
        use[vocab.types == TokenType.UNUSED] = _UNUSED
        out, bad = ffi.new("pl_spm **"), ffi.new("int32_t *")
        rc = lib.pl_spm_new(
            buffer(tokens, "uint8_t[]"),
            buffer(offsets, "int64_t[]"),
            buffer(use, "uint8_t[]"),
            buffer(scores, "float[]"),
            len(vocab),
            buffer(byte_id, "int32_t[]"),
            unk,
            seed(),
            out,
            bad,
        )
        ScoredVocab._check(rc, vocab, bad[0])
        return ffi.gc(out[0], lib.pl_spm_free)

    def encode(self, text: str, after_special: bool) -> list[int]:
        if self.space_prefix and after_special:
            text = " " + text
        return self._merge(text.replace(" ", SPACE))

    def _merge(self, text: str) -> list[int]:
        data = text.encode()
        return self._ids(lib.pl_spm_encode, data, len(data))

    def produces(self, id: int) -> bool:
        return self._merge(self._vocab.tokens[id]) == [id]
