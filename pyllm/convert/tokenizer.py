"""The vocabulary of a model folder as GGUF's tokenizer.* keys.

tokenizer.json counts first, which is what transformers goes by, then tokenizer.model (SentencePiece).
tokenizer_config.json, generation_config.json and config.json say which tokens are special, chat_template.jinja or
tokenizer_config.json how messages become text.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..errors import ConvertError
from ..gguf.header import show
from ..tokenizer.special import NAMES
from ..tokenizer.vocab import PREFIX, SPECIAL_KEYS, TokenType
from . import pretokenizer
from .folder import Config, read_json_if_there
from .sentencepiece import UNIGRAM, SentencePieceModel

#: tokens that folders call ordinary and that must not appear in text
_SPECIAL_LOOK: Final = re.compile(r"<\|.*\|>|<｜.*｜>|<unused.*>|<pad>|<mask>|<2mass>|\[@BOS@\]", re.DOTALL)
_BYTE: Final = re.compile(r"<0x[0-9A-F]{2}>")
#: classes of tokenizers that put their first token by a flag of tokenizer_config.json
_BY_FLAG: Final = re.compile(r"(Code)?(Llama|Gemma|Cohere)Tokenizer(Fast)?")
_NO_SCORE: Final = -10000.0
_ADDED_SCORE: Final = -1000.0
Metadata = dict[str, tuple[Any, str | None]]


@dataclass
class Vocabulary:
    """What becomes the tokenizer.ggml.* keys. tokens, scores and types have one entry per row of the embedding."""

    model: str  # gpt2, llama, t5, bert
    tokens: list[str]
    types: list[int]
    scores: list[float] | None = None
    merges: list[str] | None = None
    pre: str = "default"
    special: dict[str, int] = field(default_factory=dict)  # names of SPECIAL_KEYS to ids
    add: dict[str, bool] = field(default_factory=dict)  # bos, eos, space_prefix (without _token)
    charsmap: bytes = b""

    @classmethod
    def empty(cls, model: str, n: int, scores: bool) -> Vocabulary:
        """n tokens that are not used."""
        return cls(
            model, [f"[PAD{i}]" for i in range(n)], [int(TokenType.UNUSED)] * n, [_NO_SCORE] * n if scores else None
        )

    def set(self, id: int, text: str, type_: int, score: float | None = None) -> None:
        """One token; ids beyond the embedding's rows are left out."""
        if 0 <= id < len(self.tokens):
            self.tokens[id] = text
            self.types[id] = int(type_)
            if self.scores is not None and score is not None:
                self.scores[id] = score

    def metadata(self) -> Metadata:
        """The keys."""
        out: Metadata = {
            PREFIX + "model": (self.model, None),
            PREFIX + "pre": (self.pre, None),
            PREFIX + "tokens": (self.tokens, "array of string"),
        }
        if self.scores is not None:
            out[PREFIX + "scores"] = (np.array(self.scores, np.float32), "array of f32")
        out[PREFIX + "token_type"] = (np.array(self.types, np.int32), "array of i32")
        if self.merges is not None:
            out[PREFIX + "merges"] = (self.merges, "array of string")
        for name, id in self.special.items():
            out[PREFIX + SPECIAL_KEYS[name][0]] = (id, "u32")
        for name, key in (("bos", "add_bos_token"), ("eos", "add_eos_token"), ("space_prefix", "add_space_prefix")):
            if name in self.add:
                out[PREFIX + key] = (self.add[name], None)
        if self.charsmap:
            out[PREFIX + "precompiled_charsmap"] = (np.frombuffer(self.charsmap, np.uint8), "array of u8")
        return out


def tokenizer_metadata(folder: Path, config: Config, n_tokens: int, pre: str | None = None) -> Metadata:
    """All tokenizer.* keys for an embedding of n_tokens rows. pre: the pre-tokenizer's name, where the caller knows it.

    ConvertError where the folder has no tokenizer, or one that GGUF cannot express."""
    settings = read_json_if_there(folder / "tokenizer_config.json")
    path = folder / "tokenizer.json"
    fast = read_json_if_there(path)
    try:
        if fast:
            vocab = _from_json(fast, n_tokens, pre)
        elif (folder / "tokenizer.model").is_file():
            path = folder / "tokenizer.model"
            vocab = _from_sentencepiece(SentencePieceModel.read(path), n_tokens)
        elif (folder / "tekken.json").is_file():
            raise ConvertError("tekken.json is not read: take a folder with tokenizer.json")
        else:
            raise ConvertError(f"{folder}: has neither tokenizer.json nor tokenizer.model")
        _add_tokens(vocab, folder, fast, settings)
        _special(vocab, folder, config, fast, settings)
    except ConvertError as e:
        raise e if str(e).startswith(str(folder)) else ConvertError(f"{path}: {e}") from e
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as e:
        raise ConvertError(f"{path}: is not laid out as expected ({type(e).__name__}: {e})") from e
    _distinct(vocab)
    return vocab.metadata() | _templates(folder, settings)


# -- sources ------------------------------------------------------------------------------------------------


def _from_sentencepiece(model: SentencePieceModel, n: int) -> Vocabulary:
    vocab = Vocabulary.empty("t5" if model.kind == UNIGRAM else "llama", n, scores=True)
    for id, (text, score, kind) in enumerate(model.pieces):
        # those of the user are looked for in the text as it is
        vocab.set(id, text.replace("▁", " ") if kind == TokenType.USER_DEFINED else text, kind, score)
    vocab.special = dict(model.special)
    vocab.add = {"space_prefix": model.add_dummy_prefix, "bos": True, "eos": False}
    if vocab.model == "t5":
        vocab.charsmap = model.charsmap
    return vocab


def _from_json(fast: dict[str, Any], n: int, pre: str | None) -> Vocabulary:
    kind = fast["model"].get("type") or ("BPE" if "merges" in fast["model"] else None)
    if kind == "BPE":
        steps = pretokenizer.types(fast)
        return _byte_level(fast, n, pre) if "ByteLevel" in steps else _byte_fallback(fast, n)
    if kind == "Unigram":
        return _unigram(fast, n)
    if kind == "WordPiece":
        return _word_piece(fast, n)
    raise ConvertError(f"tokenizers of the type {kind!r} are not supported (BPE, Unigram, WordPiece)")


def _byte_level(fast: dict[str, Any], n: int, pre: str | None) -> Vocabulary:
    vocab = Vocabulary.empty("gpt2", n, scores=False)
    for text, id in fast["model"]["vocab"].items():
        vocab.set(_id(id), text, TokenType.NORMAL)
    # a space inside of a piece is spelled as everywhere else in a byte-level vocabulary
    vocab.merges = [" ".join(part.replace(" ", "Ġ") for part in pair) for pair in _merges(fast)]
    vocab.pre = pre or pretokenizer.find(fast)
    vocab.add = {"bos": False, "eos": False}
    return vocab


def _merges(fast: dict[str, Any]) -> list[tuple[str, str]]:
    """Pairs, which files spell as lists, or as strings with one space between."""
    pairs = []
    for merge in fast["model"]["merges"]:
        first, second = merge.split(" ") if isinstance(merge, str) else merge
        pairs.append((first, second))
    return pairs


def _byte_fallback(fast: dict[str, Any], n: int) -> Vocabulary:
    """SentencePiece's BPE as transformers writes it: the order of merges is left of the scores, and all that counts."""
    vocab = Vocabulary.empty("llama", n, scores=True)
    rank: dict[str, int] = {}
    for i, (first, second) in enumerate(_merges(fast)):
        rank.setdefault(first + second, i)
    never = float(-len(rank) - 1)
    unknown = fast["model"].get("unk_token")
    for text, id in fast["model"]["vocab"].items():
        type_ = TokenType.BYTE if _BYTE.fullmatch(text) else TokenType.UNKNOWN if text == unknown else TokenType.NORMAL
        vocab.set(_id(id), text, type_, -float(rank[text]) if text in rank else never)
    vocab.add = {"space_prefix": _space_prefix(fast), "bos": False, "eos": False}
    return vocab


def _space_prefix(fast: dict[str, Any]) -> bool:
    """Whether a space is put before text, as SentencePiece does."""
    return any(
        step.get("type") == "Prepend"
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in pretokenizer.all_steps(fast)
    )


def _unigram(fast: dict[str, Any], n: int) -> Vocabulary:
    vocab = Vocabulary.empty("t5", n, scores=True)
    unknown = fast["model"].get("unk_id")
    for id, (text, score) in enumerate(fast["model"]["vocab"]):
        vocab.set(id, text, TokenType.UNKNOWN if id == unknown else TokenType.NORMAL, float(score))
    for step in pretokenizer.all_steps(fast):
        if step.get("type") == "Precompiled":
            vocab.charsmap = base64.b64decode(step["precompiled_charsmap"])
    vocab.add = {"space_prefix": True, "bos": False, "eos": False}
    return vocab


def _word_piece(fast: dict[str, Any], n: int) -> Vocabulary:
    """llama.cpp's spelling: the beginnings of words have a mark instead of their continuations."""
    vocab = Vocabulary.empty("bert", n, scores=False)
    mark = fast["model"].get("continuing_subword_prefix", "##")
    for text, id in fast["model"]["vocab"].items():
        if text.startswith("[") and text.endswith("]"):
            vocab.set(_id(id), text, TokenType.NORMAL)
        else:
            vocab.set(_id(id), text[len(mark) :] if text.startswith(mark) else f"▁{text}", TokenType.NORMAL)
    vocab.add = {"bos": True, "eos": True}
    return vocab


# -- special tokens -----------------------------------------------------------------------------------------


def _add_tokens(vocab: Vocabulary, folder: Path, fast: dict[str, Any], settings: dict[str, Any]) -> None:
    """Tokens that are found in text before anything else: special ones, and ordinary ones that are never cut."""
    added: dict[int, tuple[str, bool]] = {}
    for text, id in read_json_if_there(folder / "added_tokens.json").items():
        added[_id(id)] = text, False
    for entry in fast.get("added_tokens") or []:
        added[_id(entry["id"])] = entry["content"], bool(entry.get("special"))
    for key, entry in (settings.get("added_tokens_decoder") or {}).items():
        added[_id(int(key))] = entry["content"], bool(entry.get("special"))
    for id, (text, special) in added.items():
        if not isinstance(text, str):
            raise ConvertError(f"the added token {id} is no text")
        unknown = 0 <= id < len(vocab.types) and vocab.types[id] == TokenType.UNKNOWN
        if special or _SPECIAL_LOOK.fullmatch(text):
            vocab.set(id, text, TokenType.UNKNOWN if unknown else TokenType.CONTROL, _ADDED_SCORE)
        else:
            vocab.set(id, text.replace("▁", " "), TokenType.USER_DEFINED, _ADDED_SCORE)


def _special(vocab: Vocabulary, folder: Path, config: Config, fast: dict[str, Any], settings: dict[str, Any]) -> None:
    """Which token begins and ends a text, and so on."""
    ids = {text: id for id, text in enumerate(vocab.tokens) if vocab.types[id] != TokenType.UNUSED}
    generation = read_json_if_there(folder / "generation_config.json")
    for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
        text = settings.get(f"{name}_token")
        if isinstance(text, dict):
            text = text.get("content")
        id = ids.get(text) if isinstance(text, str) else None
        for source in (config.values, generation):
            value = source.get(f"{name}_token_id")
            value = value[0] if isinstance(value, list) and value else value
            if id is None and type(value) is int and 0 <= value < len(vocab.tokens) and f"{name}_token" not in settings:
                id = value
        if id is not None:
            vocab.special[name] = id
        elif f"{name}_token" in settings:
            vocab.special.pop(name, None)
    vocab.special = {name: id for name, id in vocab.special.items() if id < len(vocab.tokens)}
    ends = generation.get("eos_token_id")
    for id in ends if isinstance(ends, list) else []:  # more tokens that end an answer
        if type(id) is int and 0 <= id < len(vocab.tokens) and id != vocab.special.get("eos"):
            name = "eom" if vocab.tokens[id] in NAMES["eom"] else "eot"
            vocab.special.setdefault(name, id)
    _first_and_last(vocab, fast, settings)


def _first_and_last(vocab: Vocabulary, fast: dict[str, Any], settings: dict[str, Any]) -> None:
    """Whether a text gets the first and the last token: as the tokenizer of transformers would do."""
    flags = {
        name: settings[f"add_{name}_token"]
        for name in ("bos", "eos")
        if type(settings.get(f"add_{name}_token")) is bool
    }
    by_flag = bool(_BY_FLAG.fullmatch(str(settings.get("tokenizer_class"))))
    template = _template(fast)
    if template is not None and not (by_flag and flags):
        first, last = template
        vocab.add.update(bos=first is not None, eos=last is not None)
        for name, text in (("bos", first), ("eos", last)):
            if text in vocab.tokens and name not in vocab.special:
                vocab.special[name] = vocab.tokens.index(text)
    else:
        vocab.add.update(flags)
    if isinstance(settings.get("add_prefix_space"), bool) and vocab.model == "llama" and not fast:
        vocab.add["space_prefix"] = settings["add_prefix_space"]


def _template(fast: dict[str, Any]) -> tuple[str | None, str | None] | None:
    """(first, last) special token that tokenizer.json puts around a text; None where there is no tokenizer.json."""
    if not fast:
        return None
    entry = fast.get("post_processor") or {}
    found: tuple[str | None, str | None] = (None, None)
    for processor in entry.get("processors") or [entry]:
        if processor.get("type") == "TemplateProcessing" and processor.get("single"):
            parts = processor["single"]
            first, last = ((p.get("SpecialToken") or {}).get("id") for p in (parts[0], parts[-1]))
            found = (first, last)
        elif processor.get("type") in ("RobertaProcessing", "BertProcessing"):
            found = processor["cls"][0], processor["sep"][0]
    return found


def _distinct(vocab: Vocabulary) -> None:
    """Readers refuse a vocabulary with the same token twice: later ones that are not used lose their spelling."""
    seen: dict[str, int] = {}
    for id, text in enumerate(vocab.tokens):
        if text in seen:
            loser = (
                id if vocab.types[id] == TokenType.UNUSED or vocab.types[seen[text]] != TokenType.UNUSED else seen[text]
            )
            if vocab.types[loser] not in (TokenType.UNUSED, TokenType.CONTROL, TokenType.USER_DEFINED):
                raise ConvertError(f"the vocabulary has the token {show(text)} twice")
            vocab.tokens[loser] = f"[PAD{loser}]"
            vocab.types[loser] = int(TokenType.UNUSED)
        seen.setdefault(text, id)


def _id(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise ConvertError(f"{value!r:.40} is no token id")
    return value


def _templates(folder: Path, settings: dict[str, Any]) -> Metadata:
    """The chat template, and others by name."""
    path = folder / "chat_template.jinja"
    value: Any = settings.get("chat_template")
    if path.is_file():
        try:
            value = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as e:
            raise ConvertError(f"{path}: cannot be read: {e}") from e
    elif value is None:
        value = read_json_if_there(folder / "chat_template.json").get("chat_template")
    if isinstance(value, str):
        return {"tokenizer.chat_template": (value, "string")}
    out: Metadata = {}
    if isinstance(value, list):
        named = {str(t.get("name")): t.get("template") for t in value if isinstance(t, dict)}
        texts = {name: text for name, text in named.items() if isinstance(text, str)}
        others = [name for name in texts if name != "default" and re.fullmatch(r"[A-Za-z0-9_]+", name)]
        if "default" in texts:
            out["tokenizer.chat_template"] = (texts["default"], "string")
        if others:
            out["tokenizer.chat_templates"] = (others, "array of string")
            out |= {f"tokenizer.chat_template.{name}": (texts[name], "string") for name in others}
    return out
