"""WordPiece (tokenizer.ggml.model "bert"; Devlin et al. 2018): words and punctuation marks, then the longest
tokens in C. It is made for embeddings, not for text that comes back: case, accents and spaces are lost."""

from __future__ import annotations

import unicodedata
from typing import Final

import numpy as np

from .._lib import ffi, lib
from ..errors import TokenizerError
from .kind import SPACE, buffer, pack, seed
from .vocab import TokenType, Vocab
from .words import WordEncoder

_STARTS, _CONTINUES = 1, 2  # pyllm.h: pl_wpm_new
MAX_CHARACTERS: Final = 100  # of a word; a longer one is unknown
_CHINESE: Final = (
    r"\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b81f\U0002b920-\U0002ceaf\uf900-\ufaff"
    r"\U0002f800-\U0002fa1f"
)
_PUNCTUATION: Final = r"\p{P}$+<=>^`|~"
_LEFT_OUT: Final = r"(?:[^\P{Cc}\t\n\r]|[\p{Cf}\p{Co}\ufffd])+"
_ACCENTS: Final = r"\p{Mn}+"


class WordPiece:
    """See Kind. As BertNormalizer, BertPreTokenizer and WordPiece of the `tokenizers` package do it."""

    def __init__(self, vocab: Vocab) -> None:
        import regex

        self.add_bos = self.add_eos = True  # [CLS] and [SEP]
        first, last = vocab.special.get("cls", 101), vocab.special.get("sep", 102)
        defaults = {"bos": first, "eos": last, "sep": last, "unk": 100, "pad": 0, "mask": 103}
        self.default_special = {role: id for role, id in defaults.items() if id < len(vocab)}
        self.space_prefix = True  # every word begins with one
        self._vocab = vocab
        self._lowercase = vocab.lowercase is not False
        self._strip = self._lowercase if vocab.strip_accents is None else vocab.strip_accents
        self._clean = regex.compile(_LEFT_OUT).sub
        self._chinese = regex.compile(f"([{_CHINESE}])").sub
        self._accents = regex.compile(_ACCENTS).sub
        self._words = regex.compile(rf"[{_PUNCTUATION}]|[^\s{_PUNCTUATION}]++").findall
        unk = vocab.special.get("unk", self.default_special.get("unk"))
        if unk is None:
            raise TokenizerError("the vocabulary has no token for unknown text: tokenizer.ggml.unknown_token_id")
        self._encoder = WordEncoder(lib.pl_wpm_encode, self._build(vocab, unk))
        self._unk = unk

    @staticmethod
    def _build(vocab: Vocab, unk: int) -> object:
        starts = [text.startswith(SPACE) for text in vocab.tokens]
        texts = [text[1:] if start else text for text, start in zip(vocab.tokens, starts, strict=True)]
        tokens, offsets = pack(texts)
        use = np.where(starts, _STARTS, _CONTINUES).astype(np.uint8)
        use[(vocab.types != TokenType.NORMAL) & (vocab.types != TokenType.UNDEFINED)] = 0
        out = ffi.new("pl_wpm **")
        rc = lib.pl_wpm_new(
            buffer(tokens, "uint8_t[]"),
            buffer(offsets, "int64_t[]"),
            buffer(use, "uint8_t[]"),
            len(vocab),
            unk,
            seed(),
            out,
        )
        if rc == lib.PL_E_MEM:
            raise MemoryError("no memory for the tokenizer")
        if rc:
            raise TokenizerError(f"the vocabulary is too large (error {rc})")
        return ffi.gc(out[0], lib.pl_wpm_free)

    def _normalize(self, text: str) -> str:
        text = self._clean("", text)
        if not text.isascii():
            text = self._chinese(r" \1 ", text)
            if self._strip:
                text = self._accents("", unicodedata.normalize("NFD", text))
            text = text.replace("\u03a3", "\u03c3")  # whose lower case would depend on what follows
        return text.lower() if self._lowercase else text

    def encode(self, text: str, after_special: bool) -> list[int]:
        words = self._words(self._normalize(text))
        if max(map(len, words), default=0) <= MAX_CHARACTERS:
            return self._encoder.encode(words)
        ids: list[int] = []
        known: list[str] = []
        for word in words:
            if len(word) <= MAX_CHARACTERS:
                known.append(word)
            else:
                ids += [*self._encoder.encode(known), self._unk]
                known = []
        return ids + self._encoder.encode(known)

    def token_bytes(self, id: int) -> bytes:
        return self._vocab.tokens[id].replace(SPACE, " ").encode()

    def produces(self, id: int) -> bool:
        return int(self._vocab.types[id]) == TokenType.NORMAL
