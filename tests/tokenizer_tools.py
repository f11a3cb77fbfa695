"""What the tokenizer tests share: reference files, random text, and the same vocabularies in other libraries."""

from __future__ import annotations

import json
import random
import struct
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from tokenizer_published import published
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from pyllm.tokenizer import pre

DATA = Path(__file__).parent / "data" / "tokenizers"
TINY_BPE = ("tiny-bpe-gpt2", "tiny-bpe-llama3", "tiny-bpe-qwen2", "tiny-bpe-smollm", "tiny-bpe-neox")
TINY_SPM = ("tiny-spm-llama2", "tiny-spm-gemma")


def entries(path: Path) -> Iterator[tuple[str, bool, list[int]]]:
    """Text, parse_special and ids of a reference file."""
    reference = json.loads(path.read_text(encoding="utf-8"))
    for e in reference["entries"]:
        if "gemma" in path.name and ("<start_of_turn>" in e["text"] or "\u2581" in e["text"]):
            continue
        both = e["parse_special"] == "both"
        for parse_special in (False, True) if both else (e["parse_special"],):
            yield e["text"], parse_special, e["ids"]


def huggingface(metadata: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """The vocabulary of a GGUF file as a tokenizer of the `tokenizers` package."""

    def byte_level(split: bool) -> Any:
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split)

    sequence, digits = pre_tokenizers.Sequence, pre_tokenizers.Digits
    falcon = [pre_tokenizers.Punctuation("contiguous"), byte_level(True)]
    three = pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")
    by_class = {
        "falcon": [*falcon, digits(individual_digits=False), three],
        "falcon3": [*falcon, digits(individual_digits=True)],
        "gpt-2": [byte_level(True)],
        "smollm": [digits(individual_digits=True), byte_level(True)],
    }
    name = metadata["tokenizer.ggml.pre"]
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    merges = [tuple(m.split(" ")) for m in metadata["tokenizer.ggml.merges"]]
    vocab = {t: i for i, t in enumerate(tokens)}
    row = pre.find(name)
    assert row
    result = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=row.whole_words))
    name = pre.ALIASES.get(name, name)
    result.pre_tokenizer = sequence(by_class.get(name) or [*published(name), byte_level(False)])
    result.decoder = decoders.ByteLevel()
    if row.normalize:
        result.normalizer = {"NFC": normalizers.NFC, "NFKC": normalizers.NFKC}[row.normalize]()
    for special, type_ in ((True, 3), (False, 4)):
        added = [t for t, y in zip(tokens, types, strict=True) if y == type_]
        result.add_tokens([AddedToken(t, special=special, normalized=False) for t in added])
    return result


def wordpiece_of(metadata: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """The vocabulary of a GGUF file as BERT's tokenizer of the `tokenizers` package."""
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"].tolist()
    unk = tokens[metadata["tokenizer.ggml.unknown_token_id"]]
    vocab = {}
    for i, (token, type_) in enumerate(zip(tokens, types, strict=True)):
        vocab[token[1:] if token[0] == "\u2581" else token if type_ == 3 else "##" + token] = i
    result = tokenizers.Tokenizer(models.WordPiece(vocab=vocab, unk_token=unk, max_input_chars_per_word=100))
    lowercase = metadata.get("tokenizer.ggml.normalizer.lowercase", True)
    strip = metadata.get("tokenizer.ggml.normalizer.strip_accents")
    result.normalizer = normalizers.BertNormalizer(True, True, strip, lowercase)
    result.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    added = [t for t, y in zip(tokens, types, strict=True) if y == 3]
    result.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in added])
    return result


def _varint(n: int) -> bytes:
    low = b""
    while n > 127:
        low += bytes([n & 127 | 128])
        n >>= 7
    return low + bytes([n])


def _field(number: int, value: bytes | str | int | float) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def sentencepiece_of(metadata: Mapping[str, Any]) -> sentencepiece.SentencePieceProcessor:
    """The vocabulary of a GGUF file as a model of the `sentencepiece` package (sentencepiece_model.proto)."""
    types, scores = metadata["tokenizer.ggml.token_type"], metadata["tokenizer.ggml.scores"]
    tokens = metadata["tokenizer.ggml.tokens"]
    unk = metadata.get("tokenizer.ggml.unknown_token_id", tokens.index("<unk>"))
    pieces = []
    for i, (token, type_, score) in enumerate(zip(tokens, types.tolist(), scores.tolist(), strict=True)):
        if type_ == 4:
            token = token.replace(" ", "\u2581")
        type_ = 2 if i == unk else 3 if type_ == 2 else type_
        pieces.append(_field(1, _field(1, token) + _field(2, float(score)) + _field(3, type_)))
    unigram = metadata["tokenizer.ggml.model"] == "t5"
    proto = b"".join(pieces) + _field(2, _field(3, 1 if unigram else 2) + _field(35, int(6 in types)) + _field(40, unk))
    prefix = int(metadata.get("tokenizer.ggml.add_space_prefix", True))
    merge = int(metadata.get("tokenizer.ggml.remove_extra_whitespaces", False))
    charsmap = bytes(metadata.get("tokenizer.ggml.precompiled_charsmap", b""))
    proto += _field(3, _field(1, "table") + _field(2, charsmap) + _field(3, prefix) + _field(4, merge) + _field(5, 1))
    return sentencepiece.SentencePieceProcessor(model_proto=proto)


_BLOCKS = [(0x20, 0x7F)] * 6 + [
    (0x00, 0x20),
    (0x80, 0x250),
    (0x300, 0x370),
    (0x370, 0x530),
    (0x600, 0x700),
    (0x900, 0x980),
    (0xE00, 0xE80),
    (0x1100, 0x1200),
    (0x2000, 0x2070),
    (0x2150, 0x2190),
    (0x2460, 0x2500),
    (0x3000, 0x3100),
    (0x4E00, 0x9FA6),
    (0xAC00, 0xD7A4),
    (0xFF00, 0xFFF0),
    (0x10000, 0x20000),
    (0x1F300, 0x1FB00),
]
_WORDS = [
    *("Hello", "world", "'s", "'S", "'ll", "'Re", "don't", "1234", "3.14", "...", "!!!", "_", "the", "of", "and"),
    *(
        "<|im_end|>",
        "<|endoftext|>",
        "<div>",
        "https://example.com/?q=1",
        '{"key":',
        "x+=1;",
        "def f(x):\n    return x\n",
    ),
    *(
        "ſ",
        "'ſ",
        "'ſt",
        "İ",
        "ß",
        "ǅ",
        "١٢٣",
        "Ⅷ",
        "²",
        "한국어",
        "日本語のテキスト",
        "مرحبا",
        "हिन्दी",
        "e\u0301",
        "👨\u200d👩\u200d👧",
    ),
    *("  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "▁", "\xa0", "\u3000", "\x85", "\u200b", "\x1c", "\x1d"),
]


def _settled(c: str) -> bool:
    """Assigned, and no punctuation of late: libraries differ in the version of Unicode that they know."""
    category = unicodedata.category(c)
    late = unicodedata.ucd_3_2_0.category(c) == "Cn"
    return category not in ("Cs", "Cn") and not (category[0] == "P" and late)


def random_text(rng: random.Random) -> str:
    """Words, code, scripts of the world and anything else, in short pieces; only assigned characters."""
    out = []
    for _ in range(rng.randrange(1, 30)):
        if rng.random() < 0.5:
            out.append(rng.choice(_WORDS))
        else:
            low, high = rng.choice(_BLOCKS)
            characters = (chr(rng.randrange(low, high)) for _ in range(rng.randrange(1, 6)))
            out += filter(_settled, characters)
        if rng.random() < 0.4:
            out.append(" ")
    return "".join(out)


def english(n: int, seed: int = 0) -> str:
    """n characters that read like English: the words of the licence in random order, some with endings."""
    rng = random.Random(seed)
    words = (Path(__file__).parent.parent / "LICENSE").read_text(encoding="utf-8").split()
    out: list[str] = []
    length = 0
    while length < n:
        word = rng.choice(words) + rng.choice(["", "", "", "s", "ed", "ly", ",", ".\n", f" {rng.randrange(3000)}"])
        out.append(word)
        length += len(word) + 1
    return " ".join(out)[:n]


def byte_alphabet() -> list[str]:
    """GPT-2's spelling of the bytes 0 to 255, by its definition."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    spelling, n = {}, 0
    for b in range(256):
        if b in shown:
            spelling[b] = chr(b)
        else:
            spelling[b] = chr(256 + n)
            n += 1
    return [spelling[b] for b in range(256)]
