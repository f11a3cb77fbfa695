"""Ids back to text, at once or one at a time."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

_utf8 = codecs.getincrementaldecoder("utf-8")


class StreamDecoder:
    """Text of tokens as they come, without ever cutting a character in two.

    A character whose bytes are spread over tokens comes with its last token. Bytes that cannot become a
    character come as U+FFFD as soon as that is certain.
    """

    __slots__ = ("_decoder", "_pending", "_skip_special", "_strip", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = False, continuation: bool = True) -> None:
        """skip_special: control tokens give no text.

        continuation: the tokens go on from others, so a space at their start is text. Otherwise they start a
        text, and the space that encoding put before it is taken off again (SentencePiece vocabularies only).
        """
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._strip = tokenizer.space_prefix and not continuation
        self._decoder = _utf8(errors="replace")
        self._pending = False  # bytes of an unfinished character

    def push(self, id: int) -> str:
        """The text that is certain now. TokenizerError if there is no such token."""
        plain = self._tokenizer.plain
        if not (self._pending or self._strip):
            text = plain.get(id)
            if text is not None:
                return text
        strip, data = self._strip, self._bytes(id)
        if not self._pending:
            try:
                text = data.decode()
            except UnicodeDecodeError:
                pass
            else:
                if not (strip or self._tokenizer.is_special(id)):
                    plain[id] = text
                return text
        text = self._decoder.decode(data)
        self._pending = bool(self._decoder.getstate()[0])
        return text

    def flush(self) -> str:
        """What is left at the end: U+FFFD for an unfinished character. The decoder is then as new."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        self._pending = False
        return text

    def _bytes(self, id: int) -> bytes:
        tokenizer = self._tokenizer
        data = tokenizer.token_bytes(id)
        if tokenizer.is_special(id):
            self._strip = tokenizer.space_prefix
            return b"" if self._skip_special and not tokenizer.is_user_defined(id) else data
        if self._strip:
            self._strip = False
            if data.startswith(b" "):
                return data[1:]
        return data
