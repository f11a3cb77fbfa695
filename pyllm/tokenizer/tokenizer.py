"""`Tokenizer`: the vocabulary of a GGUF file put to use."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ..errors import TokenizerError
from . import pre
from .bpe import ByteBPE
from .decode import StreamDecoder
from .kind import SPACE, Kind
from .special import SpecialTokens, recognize, strips_right
from .spm import SentencePieceBPE
from .unigram import Unigram
from .vocab import TokenType, Vocab
from .wordpiece import WordPiece

if TYPE_CHECKING:
    from ..gguf import GGUFFile

# tokenizer.ggml.model -> its class
KINDS: Final[dict[str, type[Kind]]] = {
    "gpt2": ByteBPE,
    "llama": SentencePieceBPE,
    "t5": Unigram,
    "bert": WordPiece,
}


def supported() -> dict[str, list[str]]:
    """What can be read: values of tokenizer.ggml.model, each with the tokenizer.ggml.pre that it uses."""
    return {model: pre.names() if kind is ByteBPE else [] for model, kind in KINDS.items()}


class Tokenizer:
    """Text to ids and back, as the model's authors do it. Several threads may use one.

    Attributes (ids are None where the vocabulary has no such token):
        model, pre: the kind and the pre-tokenizer, as the file names them ("gpt2", "smollm").
        n_vocab: number of tokens; ids are 0 .. n_vocab-1.
        bos_id, eos_id, eot_id, eom_id, unk_id, pad_id: begin and end of text, end of turn, end of message,
            unknown text, padding.
        special_ids: all of those and more (fill-in-the-middle, ...) by name; see vocab.SPECIAL_KEYS.
        eog_ids: every token that ends generation.
        add_bos, add_eos: what encode(add_special=True) puts before and after the text.
        space_prefix: encode puts a space before text at the start and after a special token (SentencePiece,
            WordPiece).
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        """From the metadata of a GGUF file (strings, numbers, lists of strings, numpy arrays of numbers).

        Raises TokenizerError if the vocabulary is missing, inconsistent or of a kind that is not supported.
        """
        vocab = Vocab.from_metadata(metadata)
        kind = KINDS.get(vocab.model)
        if kind is None:
            raise TokenizerError(
                f"unknown tokenizer {vocab.model!r} (tokenizer.ggml.model); supported: {', '.join(KINDS)}"
            )
        self._kind = kind(vocab)
        vocab.special = {**self._kind.default_special, **vocab.special}
        self.eog_ids: frozenset[int] = recognize(vocab, self._kind.produces)
        self._vocab = vocab
        self.model = vocab.model
        self.pre = vocab.pre
        self.n_vocab = len(vocab)
        self.special_ids: dict[str, int] = dict(vocab.special)
        self.bos_id = vocab.special.get("bos")
        self.eos_id = vocab.special.get("eos")
        self.eot_id = vocab.special.get("eot")
        self.eom_id = vocab.special.get("eom")
        self.unk_id = vocab.special.get("unk")
        self.pad_id = vocab.special.get("pad")
        self.space_prefix = self._kind.space_prefix
        self.add_bos = self._adds("bos", vocab.add_bos, self._kind.add_bos)
        self.add_eos = self._adds("eos", vocab.add_eos, self._kind.add_eos)
        self._types: list[int] = vocab.types.tolist()
        self._bytes: list[bytes | None] = [None] * self.n_vocab
        #: texts of tokens that are not special and whole characters, as far as stream decoders have met them
        self.plain: dict[int, str] = {}
        self._special = SpecialTokens(vocab, self._spelling, strips_right(vocab))
        vocab.merges = vocab.scores = vocab.charsmap = None  # what remains of them lies in C
        del vocab.ids

    @classmethod
    def from_gguf(cls, source: str | os.PathLike[str] | GGUFFile) -> Tokenizer:
        """From a GGUF file, open or by its path; the file may hold nothing but a vocabulary.

        Raises GGUFError if the file is not sound, TokenizerError as the constructor does.
        """
        if not isinstance(source, str | os.PathLike):
            return cls(source.metadata)
        from ..gguf import GGUFFile

        with GGUFFile.open(source) as file:
            return cls(file.metadata)

    def _adds(self, role: str, said: bool | None, default: bool) -> bool:
        if said and role not in self.special_ids:
            raise TokenizerError(
                f"tokenizer.ggml.add_{role}_token is true, but tokenizer.ggml.{role}_token_id is missing"
            )
        return (default if said is None else said) and role in self.special_ids

    def __repr__(self) -> str:
        return f"<Tokenizer {self.model} {self.pre}, {self.n_vocab} tokens>"

    # -- text to ids ----------------------------------------------------------------------------------------

    def encode(self, text: str | bytes, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """The ids of a text.

        add_special: put the begin- and end-of-text tokens around it, where the model wants them.
        parse_special: spellings of control tokens in the text ("<|im_start|>") become those tokens; otherwise
            they are ordinary text. User-defined tokens are always recognized.

        Surrogates in the text are joined where they make a pair; lone ones count as U+FFFD. Bytes are read as
        UTF-8, where U+FFFD stands for what is not.
        """
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        ids: list[int] = []
        if add_special and self.add_bos and self.bos_id is not None:
            ids.append(self.bos_id)
        after_special = True
        for part in self._special.cut(text, parse_special):
            if isinstance(part, int):
                ids.append(part)
                after_special = True
            else:
                ids += self._kind.encode(part, after_special)
                after_special = False
        if add_special and self.add_eos and self.eos_id is not None:
            ids.append(self.eos_id)
        return ids

    # -- ids to text ----------------------------------------------------------------------------------------

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of ids that make up a whole text: the reverse of encode.

        skip_special: control tokens and the unknown token give no text. Bytes that are not UTF-8 become
        U+FFFD. With a SentencePiece vocabulary the space that encode puts before the text is taken off; for
        ids that go on from others use stream_decoder() or decode_bytes(). TokenizerError if there is no
        such token.
        """
        ids = list(ids)
        if (skip_special or self.space_prefix) and any(map(self.is_special, set(map(self._check, ids)))):
            step = StreamDecoder(self, skip_special, continuation=False)._bytes
            return b"".join(map(step, ids)).decode("utf-8", "replace")
        data = self.decode_bytes(ids)
        if self.space_prefix and ids and self.token_bytes(ids[0]).startswith(b" "):
            data = data[1:]
        return data.decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of all tokens, one after the other, as they are."""
        ids = list(map(operator.index, ids))
        table = {id: self.token_bytes(id) for id in set(ids)}
        return b"".join(map(table.__getitem__, ids))

    def stream_decoder(self, skip_special: bool = False, continuation: bool = True) -> StreamDecoder:
        """A decoder of one token at a time; see StreamDecoder."""
        return StreamDecoder(self, skip_special, continuation)

    # -- single tokens --------------------------------------------------------------------------------------

    def _check(self, id: int) -> int:
        i = operator.index(id)
        if not 0 <= i < self.n_vocab:
            raise TokenizerError(f"there is no token {i}: the vocabulary has ids 0 to {self.n_vocab - 1}")
        return i

    def token_bytes(self, id: int) -> bytes:
        """The bytes that a token stands for; for a special token, its spelling."""
        id = self._check(id)
        data = self._bytes[id]
        if data is None:
            data = self._spelling(id).encode() if self.is_special(id) else self._kind.token_bytes(id)
            self._bytes[id] = data
        return data

    def token_text(self, id: int) -> str:
        """The text that a token stands for, by itself; U+FFFD where its bytes are not UTF-8."""
        return self.token_bytes(id).decode("utf-8", "replace")

    def id_to_token(self, id: int) -> str:
        """The token as the file spells it ("Ġthe", "▁the", "<0x0A>")."""
        return self._vocab.tokens[self._check(id)]

    def token_to_id(self, token: str) -> int | None:
        """The id of a token by the file's spelling, or None."""
        return self._vocab.ids.get(token)

    def is_special(self, id: int) -> bool:
        """Whether a token is found in raw text as a whole: control, unknown and user-defined tokens."""
        return self._types[id] in _SPECIAL

    def is_user_defined(self, id: int) -> bool:
        """Whether a token is special and yet a piece of text, to be shown and always recognized."""
        return self._types[id] == TokenType.USER_DEFINED

    def _spelling(self, id: int) -> str:
        """How a special token is written in text."""
        token = self._vocab.tokens[id]
        if self.model != "gpt2" and self._types[id] == TokenType.USER_DEFINED:
            return token.replace(SPACE, " ")
        return token


_SPECIAL: Final = frozenset(map(int, (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)))
