"""Vocabularies that are wrong are refused with TokenizerError, whatever is wrong with them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_tools import DATA, TINY_BPE, TINY_SPM, random_text

from pyllm._lib import ffi, lib
from pyllm.errors import TokenizerError
from pyllm.gguf import GGUFFile
from pyllm.tokenizer import Tokenizer

pytestmark = pytest.mark.native

K = "tokenizer.ggml."


def metadata_of(name: str) -> dict[str, Any]:
    with GGUFFile.open(DATA / f"{name}.gguf") as file:
        return dict(file.metadata)


BPE, SPM = metadata_of("tiny-bpe-llama3"), metadata_of("tiny-spm-llama2")
TOKENS, MERGES = BPE[K + "tokens"], BPE[K + "merges"]
TYPES, SCORES = SPM[K + "token_type"], SPM[K + "scores"]


def put(array: np.ndarray, at: int, value: float) -> np.ndarray:
    changed = array.copy()
    changed[at] = value
    return changed


WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (BPE, {"model": None}, "tokenizer.ggml.model is missing"),
    (BPE, {"model": 3}, "model is int 3, where a string is expected"),
    (BPE, {"model": "t6"}, "unknown tokenizer 't6'.*supported: gpt2, llama, t5, bert"),
    (BPE, {"pre": "none"}, "unknown pre-tokenizer 'none'.*gpt-2.*llama-bpe.*qwen2.*smollm"),
    (BPE, {"pre": ["gpt-2"]}, "pre is list"),
    (BPE, {"tokens": None}, "vocabulary is empty"),
    (BPE, {"tokens": []}, "vocabulary is empty"),
    (BPE, {"tokens": np.empty(0, np.int32)}, "vocabulary is empty"),
    (BPE, {"tokens": np.arange(9)}, "an array of strings is expected"),
    (BPE, {"tokens": [[1]]}, "an array of strings is expected"),
    (BPE, {"tokens": "abc"}, "an array of strings is expected"),
    (BPE, {"tokens": TOKENS[:-1] + TOKENS[:1]}, "the token '!' twice"),
    (BPE, {"tokens": TOKENS[:-1]}, "token_type has 512 elements for 511 tokens"),
    (BPE, {"token_type": np.zeros(512, np.float32)}, "an array of numbers is expected"),
    (BPE, {"token_type": 3}, "an array of numbers is expected"),
    (BPE, {"token_type": np.full(512, 2**40)}, "out of range"),
    (SPM, {"token_type": put(TYPES, 300, 7)}, "token 300 has the unknown type 7"),
    (SPM, {"token_type": put(TYPES, 300, -1)}, "token 300 has the unknown type -1"),
    (BPE, {"merges": None}, "merges is missing"),
    (BPE, {"merges": [*MERGES, "xyzzy q"]}, "merge 248 .*'xyzzy q', does not join two tokens"),
    (BPE, {"merges": [*MERGES, "q q"]}, "merge 248 .*does not join"),
    (BPE, {"merges": [*MERGES, "qq"]}, "merge 248 .*'qq', does not join"),
    (BPE, {"merges": [*MERGES, ""]}, "merge 248 .*does not join"),
    (BPE, {"merges": [*MERGES, " "]}, "merge 248 .*does not join"),
    (BPE, {"merges": [*MERGES, "q "]}, "merge 248 .*does not join"),
    (BPE, {"merges": [*MERGES, "中 q"]}, "merge 248 .*does not join"),
    (BPE, {"merges": [*MERGES, "q\u0144 q"]}, "merge 248 .*does not join"),
    (BPE, {"merges": [*MERGES, "<|begin_of_text|> q"]}, "merge 248 .*does not join"),
    (BPE, {"merges": [*MERGES, MERGES[7]]}, "merge 248 .*is there twice"),
    (BPE, {"bos_token_id": 512}, "bos_token_id is 512, but the vocabulary has 512 tokens"),
    (BPE, {"eot_token_id": -5}, "eot_token_id is -5"),
    (BPE, {"eos_token_id": 1.0}, "a token id is expected"),
    (BPE, {"eos_token_id": True}, "a token id is expected"),
    (BPE, {"add_bos_token": 1}, "true or false is expected"),
    (BPE, {"add_eos_token": True, "eos_token_id": None}, "eos_token_id is missing"),
    (SPM, {"scores": None}, "scores is missing"),
    (SPM, {"scores": SCORES[:-1]}, "scores has 767 elements for 768 tokens"),
    (SPM, {"scores": put(SCORES, 500, np.nan)}, "score of token 500, .* is not a number"),
    (SPM, {"token_type": put(TYPES, 300, 6)}, "token 300, .* is of type byte, but not spelled"),
    (SPM, {"token_type": put(TYPES, 5, 1), "unknown_token_id": None, "tokens": None}, "vocabulary is empty"),
]


@pytest.mark.parametrize(("base", "change", "message"), WRONG, ids=[w[2] for w in WRONG])
def test_refused(base: dict[str, Any], change: dict[str, Any], message: str) -> None:
    metadata = base | {K + k: v for k, v in change.items()}
    with pytest.raises(TokenizerError, match=message):
        Tokenizer({k: v for k, v in metadata.items() if v is not None})


def test_no_token_for_a_byte_and_none_for_unknown_text() -> None:
    keep = np.flatnonzero(TYPES == 1)
    metadata = {
        K + "model": "llama",
        K + "tokens": [SPM[K + "tokens"][i] for i in keep],
        K + "token_type": TYPES[keep],
        K + "scores": SCORES[keep],
    }
    assert Tokenizer(metadata).encode("\x01", False)  # token 0 is the unknown token unless the file says otherwise
    for i in (-1, 0xFFFFFFFF):  # how files say "none"
        with_none = Tokenizer(metadata | {K + "eos_token_id": i})
        assert with_none.eos_id == 2


def test_odd_but_sound() -> None:
    """Empty spellings, infinite scores, and no merges at all."""
    tokens = [*TOKENS[:-2], "", ""]
    tokenizer = Tokenizer(BPE | {K + "tokens": tokens, K + "merges": []})
    assert tokenizer.token_bytes(511) == b"" and tokenizer.decode([511, *tokenizer.encode("ab", False)]) == "ab"
    assert len(tokenizer.encode("abc,", False)) >= 2
    scores = put(put(SCORES, 400, np.inf), 401, -np.inf)
    assert Tokenizer(SPM | {K + "scores": scores}).encode("Hello")
    assert Tokenizer({k: v for k, v in BPE.items() if k != K + "token_type"}).decode([300])
    one = {K + "model": "gpt2", K + "tokens": ["a"], K + "merges": []}
    assert Tokenizer(one).encode("aba") == [0, 0]  # bytes without a token are left out, as other engines do


def test_byte_tokens_in_byte_level_bpe() -> None:
    one = {K + "model": "gpt2", K + "tokens": ["<0x41>", "<0xZZ>"], K + "merges": []}
    tokenizer = Tokenizer(one | {K + "token_type": np.array([6, 6])})
    assert tokenizer.token_bytes(0) == b"A" and tokenizer.token_bytes(1) == b"<0xZZ>"


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_change_is_refused_or_works(data: st.DataObject) -> None:
    """Change values at random: TokenizerError, or a tokenizer that encodes and decodes."""
    name = data.draw(st.sampled_from(TINY_BPE + TINY_SPM))
    metadata = metadata_of(name)
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    for _ in range(data.draw(st.integers(1, 4))):
        key = rng.choice([k for k in metadata if k.startswith(K)])
        metadata[key] = mutate(metadata[key], rng)
        if metadata[key] is None:
            del metadata[key]
    try:
        tokenizer = Tokenizer(metadata)
    except TokenizerError as e:
        assert str(e)
        return
    for _ in range(5):
        ids = tokenizer.encode(random_text(rng), parse_special=rng.random() < 0.5)
        assert all(0 <= i < tokenizer.n_vocab for i in ids)
        tokenizer.decode(ids, skip_special=rng.random() < 0.5)
    tokenizer.decode(range(tokenizer.n_vocab))
    assert all(0 <= i < tokenizer.n_vocab for i in tokenizer.eog_ids)


def mutate(value: Any, rng: random.Random) -> Any:
    choices: list[Callable[[], Any]] = [lambda: None, lambda: rng.randrange(-2, 2000), lambda: random_text(rng)]
    if isinstance(value, list):
        at, other = rng.randrange(len(value)), rng.choice(value)
        for _ in range(3):
            choices += [lambda: [*value[:at], *value[at + 1 :]], lambda: [*value[:at], other, *value[at + 1 :]]]
            choices += [
                lambda: [*value[:at], random_text(rng), *value[at + 1 :]],
                lambda: rng.sample(value, len(value)),
            ]
    if isinstance(value, np.ndarray):
        at = rng.randrange(len(value))
        for _ in range(3):
            choices += [lambda: put(value, at, rng.randrange(8)), lambda: rng.choice([value[1:], value[::-1]])]
    return rng.choice(choices)()


def test_hash_collisions_cannot_be_made() -> None:
    """Texts and merges in numbers: what would be quadratic with a hash that the file could aim at."""
    letters = [chr(c) for c in range(97, 123)]
    tokens = [a + b + c + d for a in letters for b in letters for c in letters for d in letters][:100_000]
    alphabet = letters + [a + b for a in letters for b in letters]
    merges = [f"{t[:2]} {t[2:]}" for t in tokens]
    metadata = {K + "model": "gpt2", K + "tokens": alphabet + tokens, K + "merges": merges}
    tokenizer = Tokenizer(metadata)
    assert tokenizer.n_vocab == len(alphabet) + 100_000


def test_c_refuses_bad_arguments() -> None:
    """The entry points check what they are given, also from callers other than pyllm."""
    out, bad = ffi.new("pl_bpe **"), ffi.new("int32_t *")
    text, use = ffi.new("uint8_t[4]", b"abcd"), ffi.new("uint8_t[2]", b"\1\1")
    good, falling, negative = (ffi.new("int64_t[3]", o) for o in ([0, 1, 2], [0, 2, 1], [-1, 0, 1]))
    none = ffi.new("int64_t[1]", [0])

    def bpe(tokens: Any = text, off: Any = good, use: Any = use, n: int = 2, n_merges: int = 0) -> int:
        code: int = lib.pl_bpe_new(tokens, off, use, n, text, none, n_merges, 0, 1, out, bad)
        return code

    assert bpe() == 0
    handle = ffi.gc(out[0], lib.pl_bpe_free)
    for wrong in ({"tokens": ffi.NULL}, {"use": ffi.NULL}, {"off": ffi.NULL}, {"off": falling}, {"off": negative}):
        assert bpe(**wrong) == lib.PL_E_ARG
    assert bpe(n=0) == bpe(n=-1) == bpe(n_merges=-1) == lib.PL_E_ARG
    ids, ends = ffi.new("int32_t[8]"), ffi.new("int64_t[8]")
    assert lib.pl_bpe_encode(handle, text, good, 2, ids, 8, ends) == 2
    for off, n, cap in ((good, 2, 1), (falling, 2, 8), (negative, 2, 8), (good, -1, 8), (ffi.NULL, 1, 8)):
        assert lib.pl_bpe_encode(handle, text, off, n, ids, cap, ends) == lib.PL_E_ARG
    assert lib.pl_bpe_encode(ffi.NULL, text, good, 2, ids, 8, ends) == lib.PL_E_ARG

    spm_out, score = ffi.new("pl_spm **"), ffi.new("float[2]")
    byte_id = ffi.new("int32_t[256]", [0] * 256)

    def spm(off: Any = good, unk: int = -1, n: int = 2, ids: Any = byte_id) -> int:
        code: int = lib.pl_spm_new(text, off, use, score, n, ids, unk, 1, spm_out, bad)
        return code

    assert spm() == 0
    pieces = ffi.gc(spm_out[0], lib.pl_spm_free)
    assert spm(off=falling) == spm(unk=2) == spm(n=0) == spm(ids=ffi.NULL) == lib.PL_E_ARG
    assert spm(ids=ffi.new("int32_t[256]", [2] * 256)) == lib.PL_E_ARG
    assert spm(ids=ffi.new("int32_t[256]", [-1] * 256)) == lib.PL_E_ARG
    assert lib.pl_spm_encode(pieces, text, 4, ids, 8) == 4
    assert lib.pl_spm_encode(pieces, text, 4, ids, 3) == lib.PL_E_ARG
    assert lib.pl_spm_encode(pieces, text, -1, ids, 8) == lib.PL_E_ARG
    assert lib.pl_spm_encode(pieces, text, 2**31, ids, 2**31) == lib.PL_E_ARG

    two = ffi.new("int32_t[2]", [0, 1])
    assert lib.pl_special_new(text, falling, two, 2, 1) == ffi.NULL
    assert lib.pl_special_new(text, good, ffi.new("int32_t[2]", [0, -1]), 2, 1) == ffi.NULL
    assert lib.pl_special_new(text, good, two, 0, 1) == ffi.NULL
    finder = ffi.gc(lib.pl_special_new(text, good, two, 2, 1), lib.pl_special_free)
    hits = ffi.new("int64_t[6]")
    assert lib.pl_special_find(finder, b"xaxb", 4, hits, 2) == 2 and list(hits) == [1, 2, 0, 3, 4, 1]
    assert lib.pl_special_find(finder, b"xaxb", 4, ffi.NULL, 0) == 2
    assert lib.pl_special_find(finder, b"xaxb", -1, hits, 2) == lib.PL_E_ARG
    assert lib.pl_special_find(finder, b"xaxb", 4, ffi.NULL, 2) == lib.PL_E_ARG


def test_c_takes_any_bytes() -> None:
    """Not only UTF-8: cut and odd characters are bytes like others."""
    tokenizer: Any = Tokenizer(SPM)
    handle = tokenizer._kind._handle
    rng = random.Random(1)
    for _ in range(500):
        data = bytes(
            rng.choice([0x20, 0x61, 0xE2, 0x96, 0x81, 0xC3, 0xF0, 0xFF, 0x80]) for _ in range(rng.randrange(1, 20))
        )
        ids = ffi.new("int32_t[]", len(data))
        n = lib.pl_spm_encode(handle, data, len(data), ids, len(data))
        spelled = b"".join(tokenizer.token_bytes(i) for i in ids[0:n])
        assert spelled.replace(b" ", "▁".encode()) == data.replace(b" ", "▁".encode())
