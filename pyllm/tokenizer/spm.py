"""SentencePiece BPE with byte fallback (tokenizer.ggml.model "llama"; Kudo and Richardson 2018), in C."""

from __future__ import annotations

import numpy as np

from .._lib import ffi, lib
from ..errors import TokenizerError
from .kind import SPACE, buffer, byte_tokens, pack, seed
from .vocab import TokenType, Vocab

_MERGED, _UNUSED = 1, 2  # pyllm.h: pl_spm_new


class SentencePieceBPE:
    """See Kind."""

    def __init__(self, vocab: Vocab) -> None:
        if vocab.scores is None:
            raise TokenizerError("tokenizer.ggml.scores is missing, and tokenizer.ggml.model llama needs it")
        self.add_bos = True
        self.add_eos = False
        n = len(vocab)
        self.default_special = {k: id for k, id in (("bos", 1), ("eos", 2), ("unk", 0)) if id < n}
        self.space_prefix = vocab.add_space_prefix is not False
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
        if rc == lib.PL_E_MEM:
            raise MemoryError("no memory for the tokenizer")
        if rc == lib.PL_E_VOCAB:
            raise TokenizerError(f"the score of token {bad[0]}, {vocab.tokens[bad[0]]!r:.60}, is not a number")
        if rc:
            raise TokenizerError(f"the vocabulary is inconsistent (error {rc} at {bad[0]})")
        return ffi.gc(out[0], lib.pl_spm_free)

    def encode(self, text: str, after_special: bool) -> list[int]:
        if self.space_prefix and after_special:
            text = " " + text
        return self._merge(text.replace(" ", SPACE))

    def _merge(self, text: str) -> list[int]:
        data = text.encode()
        ids = np.empty(max(len(data), 1), np.int32)
        n = lib.pl_spm_encode(self._handle, buffer(data, "uint8_t[]"), len(data), buffer(ids, "int32_t[]"), len(ids))
        if n == lib.PL_E_MEM:
            raise MemoryError("no memory to tokenize the text")
        if n < 0:
            raise TokenizerError(f"the text is too long to tokenize at once: {len(data)} bytes, 2 GiB is the limit")
        result: list[int] = ids[:n].tolist()
        return result

    def token_bytes(self, id: int) -> bytes:
        if id in self._byte_of:
            return bytes([self._byte_of[id]])
        return self._vocab.tokens[id].replace(SPACE, " ").encode()

    def produces(self, id: int) -> bool:
        return self._merge(self._vocab.tokens[id]) == [id]
