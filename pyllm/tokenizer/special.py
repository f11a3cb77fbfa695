"""Special tokens: which ids mean what, which of them end generation, and finding them in raw text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from .._lib import ffi, lib
from .kind import buffer, pack, seed
from .vocab import TokenType, Vocab

# What llama.cpp recognizes by spelling, because few files say it in their metadata.
NAMES: Final[dict[str, tuple[str, ...]]] = {
    "eot": (
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "<｜end▁of▁sentence｜>",
        "<end_of_utterance>",
    ),
    "eom": ("<|eom_id|>",),
    "fim_pre": (
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<｜fim▁begin｜>",
        "<PRE>",
        "▁<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
    ),
    "fim_suf": (
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<｜fim▁hole｜>",
        "<SUF>",
        "▁<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
    ),
    "fim_mid": (
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<｜fim▁end｜>",
        "<MID>",
        "▁<MID>",
        "<|code_middle|>",
        "<|middle|>",
    ),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
ENDS: Final = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
)
# Vocabularies with all tokens of one of these sets use <|end|> inside an answer.
_END_IS_INNER: Final = (
    {"<|return|>", "<|call|>"},
    {"<|flush|>", "<|call|>"},
    {"<|flush|>", "<|calls|>"},
    {"<|return|>", "<|calls|>"},
)
_ALWAYS_IN_TEXT: Final = (TokenType.USER_DEFINED,)
_SPECIAL: Final = (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)


def recognize(vocab: Vocab, produces: Callable[[int], bool]) -> frozenset[int]:
    """Complete vocab.special by spelling, and return the ids that end generation.

    As llama.cpp collects them: the eos, eot, eom and fim_pad/rep/sep tokens and all that are spelled like
    one of ENDS; whatever is recognized by spelling becomes a control token. Unlike there, a token that
    plain text can become is not recognized by its spelling, and a "</s>" only if the file says that it is a
    control token (for Qwen2 and Gemma it is an HTML tag).
    """

    def named(text: str) -> int | None:
        id = vocab.ids.get(text)
        if id is None or vocab.types[id] == TokenType.CONTROL:
            return id
        if text == "</s>" or (vocab.types[id] == TokenType.NORMAL and produces(id)):
            return None
        vocab.types[id] = TokenType.CONTROL
        return id

    for role, texts in NAMES.items():
        if role not in vocab.special:
            found = (id for text in texts if (id := named(text)) is not None)
            if (first := next(found, None)) is not None:
                vocab.special[role] = first
    roles = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")
    ends = {vocab.special[role] for role in roles if role in vocab.special}
    ends |= {id for text in ENDS if (id := named(text)) is not None}
    spelled = {vocab.tokens[id] for id in ends}
    inner = vocab.ids.get("<|end|>")
    if inner in ends and inner != vocab.special.get("eos") and any(s <= spelled for s in _END_IS_INNER):
        ends.discard(inner)
        vocab.types[inner] = TokenType.USER_DEFINED
        if vocab.special.get("eot") == inner:
            del vocab.special["eot"]
    return frozenset(ends)


class SpecialTokens:
    """Cuts text at the special tokens in it.

    User-defined tokens are recognized always, control tokens and the unknown token only with parse_special.
    """

    def __init__(self, vocab: Vocab, spelling: Callable[[int], str], strips_right: frozenset[int]) -> None:
        """spelling(id): a token as written in text; strips_right: those that swallow spaces after them."""
        self._strips_right = strips_right
        self._handles = {
            parse_special: self._build(vocab, types, spelling)
            for parse_special, types in ((False, _ALWAYS_IN_TEXT), (True, _SPECIAL))
        }

    @staticmethod
    def _build(vocab: Vocab, types: tuple[TokenType, ...], spelling: Callable[[int], str]) -> object | None:
        ids = np.flatnonzero(np.isin(vocab.types, types)).astype(np.int32)
        texts, offsets = pack([spelling(id) for id in ids.tolist()])
        if not texts:
            return None
        handle = lib.pl_special_new(
            buffer(texts, "uint8_t[]"),
            buffer(offsets, "int64_t[]"),
            buffer(ids, "int32_t[]"),
            len(ids),
            seed(),
        )
        if handle == ffi.NULL:
            raise MemoryError("no memory for the tokenizer")
        owned: object = ffi.gc(handle, lib.pl_special_free)
        return owned

    def cut(self, text: str, parse_special: bool) -> Iterator[str | int]:
        """The text in order: stretches of plain text, none of them empty, and ids."""
        handle = self._handles[parse_special]
        if handle is None:
            if text:
                yield text
            return
        data = text.encode()
        cap = 256
        while True:
            hits = np.empty((cap, 3), np.int64)
            n = lib.pl_special_find(handle, buffer(data, "uint8_t[]"), len(data), buffer(hits, "int64_t[]"), cap)
            if n <= cap:
                break
            cap = n
        if not n:
            if text:
                yield text
            return
        at = 0
        for start, end, id in hits[:n].tolist():
            if start > at:
                yield data[at:start].decode()
            yield id
            at = max(at, end)
            if id in self._strips_right:
                while data[at : at + 1] in _SPACES:
                    at += 1
        if at < len(data):
            yield data[at:].decode()


_SPACES: Final = frozenset(bytes([b]) for b in b" \t\n\v\f\r")


def strips_right(vocab: Vocab) -> frozenset[int]:
    """The special tokens of Phi-3, which GGUF files do not mark: they swallow the spaces after them."""
    if not any(s in vocab.name.lower() for s in ("phi-3", "phi3")):
        return frozenset()
    ids = np.flatnonzero(np.isin(vocab.types, _SPECIAL)).tolist()
    return frozenset(id for id in ids if vocab.tokens[id] not in ("<unk>", "<s>", "<|endoftext|>"))
