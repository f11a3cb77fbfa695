"""Unigram and WordPiece: against `sentencepiece`, `tokenizers` and reference ids; and what is wrong with a file."""

from __future__ import annotations

import random
import time
import unicodedata
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_tools import DATA, english, entries, random_text, sentencepiece_of, wordpiece_of

from pyllm._lib import ffi, lib
from pyllm.errors import TokenizerError
from pyllm.gguf import GGUFFile
from pyllm.tokenizer import Tokenizer

pytestmark = pytest.mark.native

K = "tokenizer.ggml."
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def read(path: Path) -> dict[str, Any]:
    with GGUFFile.open(path) as file:
        return dict(file.metadata)


def charsmap(rule: str) -> bytes:
    """One of SentencePiece's own tables of replacements."""
    normalizer = sentencepiece.SentencePieceNormalizer(rule_name=rule)
    data = normalizer.serialized_model_proto()
    return fields(dict(fields(data))[3])[1][1]


def fields(data: bytes) -> list[tuple[int, Any]]:
    """Numbers and values of a protocol buffer's fields."""
    found, at = [], 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = number()
        size = {1: 8, 5: 4}.get(key & 7)
        if key & 7 == 0:
            found.append((key >> 3, number()))
            continue
        if size is None:
            size = number()
        found.append((key >> 3, data[at : at + size]))
        at += size
    return found


NMT_NFKC = charsmap("nmt_nfkc")


def unigram(**change: Any) -> dict[str, Any]:
    """The tokens of a small vocabulary with random scores, of which some are equal."""
    metadata = read(DATA / "tiny-spm-llama2.gguf")
    rng = random.Random(11)
    n = len(metadata[K + "tokens"])
    return {
        K + "model": "t5",
        K + "tokens": metadata[K + "tokens"],
        K + "token_type": metadata[K + "token_type"],
        K + "scores": np.array([-rng.randrange(4, 60) / 4 for _ in range(n)], np.float32),
        K + "unknown_token_id": 0,
        K + "eos_token_id": 2,
        K + "precompiled_charsmap": np.frombuffer(NMT_NFKC, np.uint8),
        K + "remove_extra_whitespaces": True,
    } | {K + k: v for k, v in change.items()}


def without_bytes(metadata: dict[str, Any]) -> dict[str, Any]:
    types = metadata[K + "token_type"].copy()
    types[types == 6] = 3
    return metadata | {K + "token_type": types}


# -- unigram ------------------------------------------------------------------------------------------------


def compare(metadata: dict[str, Any], n: int, seed: int) -> int:
    """Ids are those of sentencepiece, or of the same score: it adds up in float32. Returns how many differ."""
    tokenizer, oracle = Tokenizer(metadata), sentencepiece_of(metadata)
    rng = random.Random(seed)
    scores = [Fraction(float(s)) for s in metadata[K + "scores"]]
    texts = [random_text(rng) for _ in range(n)] + [english(3000, seed), "", " ", "   ", "\x01", " \x01 a", "\u200b b "]
    differ = 0
    for text in texts:
        text = text.replace("\0", "").replace("\u2581", " ")
        for special in ("<unk>", "<s>", "</s>"):
            text = text.replace(special, "")
        ids, expected = tokenizer.encode(text, add_special=False), oracle.encode(text)
        if ids != expected:
            differ += 1
            assert sum(scores[i] for i in ids) == sum(scores[i] for i in expected), text
    return differ


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("fallback", [True, False])
def test_unigram(prefix: bool, merge: bool, fallback: bool) -> None:
    metadata = unigram(add_space_prefix=prefix, remove_extra_whitespaces=merge)
    compare(metadata if fallback else without_bytes(metadata), 300, 1)


@pytest.mark.parametrize("rule", ["identity", "nfkc", "nmt_nfkc_cf"])
def test_unigram_with_other_tables(rule: str) -> None:
    compare(unigram(precompiled_charsmap=np.frombuffer(charsmap(rule), np.uint8)), 300, 2)


def test_unigram_across_words() -> None:
    """A token with a space inside: text cannot be cut at words."""
    metadata = unigram()
    tokens = metadata[K + "tokens"] = list(metadata[K + "tokens"])
    metadata[K + "scores"] = metadata[K + "scores"].copy()
    for i, token in enumerate(["e▁t", "▁of▁the", "s▁", ",▁"]):
        assert token not in tokens
        tokens[-1 - i], metadata[K + "scores"][-1 - i] = token, -1
    tokenizer = Tokenizer(metadata)
    assert tokenizer.token_to_id("▁of▁the") in tokenizer.encode("some of the words")
    compare(metadata, 300, 3)


def test_unigram_of_a_real_vocabulary(shared: Path) -> None:
    metadata = read(shared / "goldens/vocabs/ggml-vocab-nomic-bert-moe.gguf")
    assert compare(metadata, 300, 4) < 3
    tokenizer = Tokenizer(metadata)
    ids = tokenizer.encode("Hello world")
    assert ids[0] == tokenizer.bos_id == 0 and ids[-1] == tokenizer.eos_id == 2
    assert tokenizer.decode(ids, skip_special=True) == "Hello world"


@settings(max_examples=150, deadline=None)
@given(text=text)
def test_unigram_decodes_to_the_normalized_text(text: str) -> None:
    tokenizer = Tokenizer(unigram(precompiled_charsmap=None, remove_extra_whitespaces=False))
    assert tokenizer.decode(tokenizer.encode(text), skip_special=True) == text.replace("\u2581", " ")


# -- WordPiece ----------------------------------------------------------------------------------------------


def wordpiece(**change: Any) -> dict[str, Any]:
    rng = random.Random(6)
    pieces = {text[i : i + rng.randrange(1, 5)] for text in english(4000).split() for i in range(0, len(text), 3)}
    pieces |= {*"abcdefghijklmnopqrstuvwxyzABCHST0123456789.,'<>|_éß中日", "स", "ᄒ", "ᅡ", "e\u0301", "▁"}
    starts = sorted(p for p in pieces if rng.random() < 0.8)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *("▁" + p for p in starts), *sorted(pieces - {"▁"})]
    return {
        K + "model": "bert",
        K + "tokens": words,
        K + "token_type": np.array([3] * 4 + [1] * (len(words) - 4), np.int32),
        K + "unknown_token_id": 1,
        K + "cls_token_id": 2,
        K + "seperator_token_id": 3,
        K + "padding_token_id": 0,
    } | {K + k: v for k, v in change.items()}


def settled(c: str) -> bool:
    """Not a mark or punctuation that came to Unicode late: `tokenizers` does not know those."""
    return unicodedata.category(c)[0] not in "MPC" or unicodedata.ucd_3_2_0.category(c) == unicodedata.category(c)


@pytest.mark.parametrize("strip", [None, True, False])
@pytest.mark.parametrize("lower", [None, True, False])
def test_wordpiece(lower: bool | None, strip: bool | None) -> None:
    change = {"normalizer.lowercase": lower, "normalizer.strip_accents": strip}
    metadata = wordpiece(**{k: v for k, v in change.items() if v is not None})
    compare_wordpiece(metadata, wordpiece_of(metadata), 300)


def test_wordpiece_of_a_real_vocabulary(shared: Path) -> None:
    path = shared / "goldens/vocabs/ggml-vocab-bert-bge.gguf"
    metadata = read(path)
    compare_wordpiece(metadata, wordpiece_of(metadata), 500)
    tokenizer, n = Tokenizer(metadata), 0
    for text, parse_special, ids in entries(shared / "goldens/tokenizers/real-bert-bge.json"):
        assert tokenizer.encode(text, add_special=False, parse_special=parse_special) == ids, text
        n += 1
    assert n > 270
    assert tokenizer.encode("Hello wörld!") == [101, 7592, 2088, 999, 102]
    assert tokenizer.decode(tokenizer.encode("Hello wörld"), skip_special=True) == "hello world"


def compare_wordpiece(metadata: dict[str, Any], oracle: tokenizers.Tokenizer, n: int) -> None:
    tokenizer, rng = Tokenizer(metadata), random.Random(8)
    long = ["a" * k for k in (99, 100, 101)] + ["b " + "c" * 300 + " d", "ΑΣ ΑΣΑ", "İı", "\u1e9e"]
    for text in [random_text(rng) for _ in range(n)] + [english(3000, 2), "", " ", *long]:
        text = "".join(filter(settled, text))
        expected = oracle.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text, add_special=False, parse_special=True) == expected, text


# -- both ---------------------------------------------------------------------------------------------------


@pytest.mark.alone
@pytest.mark.parametrize("make", [unigram, wordpiece])
@pytest.mark.parametrize("unit", ["a", " ", "\n", "1", "!", "é", "中", "a ", "Σ", "\u0301", "ﷺ"])
def test_long_runs_take_linear_time(make: Any, unit: str) -> None:
    tokenizer = Tokenizer(make())
    start = time.process_time()
    tokenizer.encode(unit * (1_000_000 // len(unit.encode())))
    assert time.process_time() - start < 5


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (unigram, {"scores": None}, "scores is missing"),
    (unigram, {"scores": np.full(768, np.nan, np.float32)}, "the score of token .* is not a number"),
    (unigram, {"scores": np.full(768, -np.inf, np.float32)}, "the score of token .* is not a number"),
    (unigram, {"precompiled_charsmap": "abc"}, "an array of bytes is expected"),
    (unigram, {"precompiled_charsmap": np.zeros(3, np.uint8)}, "precompiled_charsmap is not a table"),
    (unigram, {"precompiled_charsmap": np.full(64, 255, np.uint8)}, "precompiled_charsmap is not a table"),
    (unigram, {"precompiled_charsmap": np.frombuffer(NMT_NFKC[:-1] + b"x", np.uint8)}, "is not a table"),
    (unigram, {"remove_extra_whitespaces": 1}, "true or false is expected"),
    (wordpiece, {"normalizer.lowercase": "yes"}, "true or false is expected"),
    (wordpiece, {"unknown_token_id": 10**6}, "unknown_token_id is 1000000"),
    (wordpiece, {"tokens": ["▁a"], "token_type": None, "unknown_token_id": None, "cls_token_id": None,
                 "seperator_token_id": None, "padding_token_id": None}, "no token for unknown text"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "change", "message"), WRONG, ids=[w[2] for w in WRONG])
def test_refused(make: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        Tokenizer({k: v for k, v in make(**change).items() if v is not None})


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_table_of_replacements_is_refused_or_works(data: st.DataObject) -> None:
    table = bytearray(NMT_NFKC)
    for _ in range(data.draw(st.integers(1, 50))):
        at = data.draw(st.one_of(st.integers(0, 5000), st.integers(0, len(table) - 2)))
        table[at] = data.draw(st.integers(0, 255))
    try:
        tokenizer = Tokenizer(unigram(precompiled_charsmap=np.frombuffer(bytes(table), np.uint8)))
    except TokenizerError:
        return
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    ids = tokenizer.encode(random_text(rng))
    assert all(0 <= i < tokenizer.n_vocab for i in ids)


def test_c_refuses_bad_arguments() -> None:
    text, use, score = b"abcd", b"\1\1", ffi.new("float[2]")
    good, falling = ffi.new("int64_t[3]", [0, 1, 2]), ffi.new("int64_t[3]", [0, 2, 1])
    byte_id, none = ffi.new("int32_t[256]", [0] * 256), ffi.new("int32_t[256]", [-1] * 256)
    out, bad = ffi.new("pl_ugm **"), ffi.new("int32_t *")

    def ugm(
        off: Any = good, n: int = 2, ids: Any = byte_id, unk: int = -1, table: Any = ffi.NULL, size: int = 0
    ) -> int:
        code: int = lib.pl_ugm_new(text, off, use, score, n, ids, unk, table, size, 1, out, bad)
        return code

    assert ugm() == 0
    handle = ffi.gc(out[0], lib.pl_ugm_free)
    assert ugm(off=falling) == ugm(n=0) == ugm(ids=none) == ugm(unk=2) == ugm(size=9) == ugm(size=-1) == lib.PL_E_ARG
    ids = ffi.new("int32_t[8]")
    assert lib.pl_ugm_encode(handle, b"abz", 3, ids, 8) == 3
    assert lib.pl_ugm_encode(handle, text, 4, ids, 3) == lib.pl_ugm_encode(handle, text, -1, ids, 8) == lib.PL_E_ARG
    assert lib.pl_ugm_normalize(handle, text, 4, 0, 0, ffi.NULL, 0) == 4
    assert lib.pl_ugm_normalize(handle, text, 4, 0, 0, ffi.NULL, 1) == lib.PL_E_ARG
    wpm_out, ends = ffi.new("pl_wpm **"), ffi.new("int64_t[8]")
    assert lib.pl_wpm_new(text, good, use, 2, 0, 1, wpm_out) == 0
    wpm = ffi.gc(wpm_out[0], lib.pl_wpm_free)
    assert lib.pl_wpm_new(text, falling, use, 2, 0, 1, wpm_out) == lib.PL_E_ARG
    assert lib.pl_wpm_new(text, good, use, 2, 2, 1, wpm_out) == lib.pl_wpm_new(text, good, use, 0, 0, 1, wpm_out)
    assert lib.pl_wpm_encode(wpm, text, good, 2, ids, 8, ends) == 2
    assert lib.pl_wpm_encode(wpm, text, good, 2, ids, 1, ends) == lib.PL_E_ARG
    assert lib.pl_wpm_encode(wpm, text, falling, 2, ids, 8, ends) == lib.PL_E_ARG


def test_c_takes_any_bytes() -> None:
    tokenizer: Any = Tokenizer(unigram())
    handle = tokenizer._kind._handle
    rng = random.Random(1)
    for _ in range(500):
        data = bytes(rng.choice(b" a\xe2\x96\x81\xc3\xf0\xff\x80") for _ in range(rng.randrange(1, 20)))
        out, ids = ffi.new("uint8_t[]", 200), ffi.new("int32_t[]", 200)
        n = lib.pl_ugm_normalize(handle, data, len(data), rng.randrange(2), rng.randrange(2), out, 200)
        assert 0 <= n <= 200 and 0 <= lib.pl_ugm_encode(handle, out, n, ids, 200) <= n
