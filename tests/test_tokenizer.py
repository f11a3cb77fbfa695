"""Tokenizers against reference ids, and what their users rely on: round trips, special tokens, streams."""

from __future__ import annotations

import json
import random
import threading
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_tools import DATA, TINY_BPE, TINY_SPM, byte_alphabet, english, entries, random_text

from pyllm.errors import GGUFError, TokenizerError
from pyllm.gguf import GGUFFile
from pyllm.tokenizer import Tokenizer, pre, supported, words

pytestmark = pytest.mark.native

TINY = {name: Tokenizer.from_gguf(DATA / f"{name}.gguf") for name in TINY_BPE + TINY_SPM}
CUTS = [row.compile() for row in set(pre.PRE_TOKENIZERS.values())]
REQUIRED = ("llama-bpe", "qwen2", "gpt-2", "llama-spm", "phi-3")
OTHERS = ("command-r", "deepseek-coder", "falcon", "mpt", "refact", "starcoder")

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


# -- reference ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY)
def test_ids_of_tiny_vocabularies(name: str) -> None:
    n = 0
    for text, parse_special, ids in entries(DATA / f"{name}.json"):
        assert TINY[name].encode(text, add_special=False, parse_special=parse_special) == ids, text
        n += 1
    assert n > 270


@pytest.mark.parametrize("name", REQUIRED + OTHERS)
def test_ids_of_real_vocabularies(name: str, shared: Path) -> None:
    tokenizer = Tokenizer.from_gguf(shared / f"goldens/vocabs/ggml-vocab-{name}.gguf")
    n = 0
    for text, parse_special, ids in entries(shared / f"goldens/tokenizers/real-{name}.json"):
        assert tokenizer.encode(text, add_special=False, parse_special=parse_special) == ids, text
        n += 1
    assert n > 270


@pytest.mark.parametrize("name", REQUIRED + OTHERS)
def test_ids_of_llama_cpp(name: str, shared: Path) -> None:
    """The pairs of files that llama.cpp tests its own tokenizers with."""
    path = shared / f"goldens/vocabs/ggml-vocab-{name}.gguf"
    tokenizer = Tokenizer.from_gguf(path)
    with open(f"{path}.inp", encoding="utf-8", newline="") as f:
        texts = f.read().split("\n__ggml_vocab_test__\n")
    lines = Path(f"{path}.out").read_text().split("\n")
    assert len(texts) == len(lines) == 47
    for text, line in zip(texts, lines, strict=True):
        assert tokenizer.encode(text, add_special=False) == [int(i) for i in line.split()], text


def test_ids_of_smollm2(smollm2: Path, shared: Path) -> None:
    tokenizer = Tokenizer.from_gguf(smollm2)
    ids = json.loads((shared / "reference/perplexity_ids_smollm2.txt").read_text())
    with open(shared / "reference/perplexity_text.txt", encoding="utf-8", newline="") as f:
        text = f.read()
    assert len(ids) == 7639
    assert tokenizer.encode(text) == ids
    assert tokenizer.decode(ids) == text
    with open(shared / "reference/smollm2_greedy_f32.jsonl", encoding="utf-8") as f:
        for line in map(json.loads, f):
            assert tokenizer.encode(line["prompt"], parse_special=True) == line["prompt_ids"]


# -- round trips --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY_BPE)
@settings(max_examples=150, deadline=None)
@given(text=text)
def test_decode_reverses_encode_in_byte_level_bpe(name: str, text: str) -> None:
    expected = unicodedata.normalize("NFC", text) if name in ("tiny-bpe-qwen2", "tiny-bpe-neox") else text
    tokenizer = TINY[name]
    assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == expected
    assert tokenizer.decode(tokenizer.encode(text, parse_special=True), skip_special=False).endswith(expected)
    assert tokenizer.decode_bytes(tokenizer.encode(text, add_special=False)) == expected.encode()


@pytest.mark.parametrize("name", TINY_SPM)
@settings(max_examples=150, deadline=None)
@given(text=text)
def test_decode_reverses_encode_in_sentencepiece(name: str, text: str) -> None:
    expected = text.replace("\u2581", " ")
    tokenizer = TINY[name]
    assert tokenizer.decode(tokenizer.encode(text), skip_special=True) == expected
    assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == expected


@pytest.mark.parametrize("name", TINY)
def test_decode_reverses_encode_with_special_tokens(name: str) -> None:
    tokenizer = TINY[name]
    special = [tokenizer.token_text(i) for i in range(tokenizer.n_vocab) if tokenizer.is_special(i)]
    rng = random.Random(name)
    for _ in range(200):
        text = "".join(rng.choice([rng.choice(special), "Hello", " world", " ", "\n"]) for _ in range(9))
        ids = tokenizer.encode(text, add_special=False, parse_special=True)
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("name", TINY)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_stream_gives_the_text_of_decode(name: str, data: st.DataObject) -> None:
    """Whatever the ids: all pieces together are the text, and no piece ends inside a character."""
    tokenizer = TINY[name]
    ids = data.draw(st.lists(st.integers(0, tokenizer.n_vocab - 1), max_size=40))
    skip = data.draw(st.booleans())
    decoder = tokenizer.stream_decoder(skip_special=skip, continuation=False)
    pieces = [decoder.push(i) for i in ids]
    assert "".join(pieces) + decoder.flush() == tokenizer.decode(ids, skip_special=skip)


def test_stream_waits_for_whole_characters() -> None:
    tokenizer = TINY["tiny-bpe-gpt2"]
    ids = tokenizer.encode("🦙é", add_special=False)
    decoder = tokenizer.stream_decoder()
    pieces = [decoder.push(i) for i in ids]
    assert len(ids) > 2 and [p for p in pieces if p] == ["🦙", "é"]
    assert decoder.flush() == ""


def test_stream_replaces_what_is_certainly_invalid() -> None:
    tokenizer = TINY["tiny-bpe-gpt2"]
    byte = {b: tokenizer.token_to_id(c) for b, c in enumerate(byte_alphabet())}
    decoder = tokenizer.stream_decoder()
    assert decoder.push(byte[0xF0]) == decoder.push(byte[0x9F]) == ""
    assert decoder.push(byte[ord("a")]) == "\ufffda"  # the character can no longer be finished
    assert decoder.push(byte[0xC0]) == "\ufffd"  # no character starts so
    assert decoder.push(byte[0xE2]) == ""
    assert decoder.flush() == "\ufffd"
    assert decoder.push(byte[ord("b")]) == "b"
    assert tokenizer.decode([byte[0xF0], byte[0x9F], byte[ord("a")]]) == "\ufffda"


def test_every_byte_has_its_token() -> None:
    for name in TINY:
        tokenizer = TINY[name]
        single = {tokenizer.token_bytes(i) for i in range(tokenizer.n_vocab)}
        assert all(bytes([b]) in single for b in range(256)), name


# -- special tokens -----------------------------------------------------------------------------------------


def test_begin_and_end_of_text() -> None:
    llama3, spm = TINY["tiny-bpe-llama3"], TINY["tiny-spm-llama2"]
    assert llama3.add_bos and llama3.encode("a") == [llama3.bos_id, *llama3.encode("a", add_special=False)]
    assert spm.encode("") == [spm.bos_id] and spm.encode("", add_special=False) == []
    assert not spm.add_eos
    smollm = TINY["tiny-bpe-smollm"]
    assert not smollm.add_bos and smollm.encode("a") == smollm.encode("a", add_special=False)
    metadata = dict(metadata_of("tiny-spm-llama2"))
    metadata |= {"tokenizer.ggml.add_eos_token": True, "tokenizer.ggml.add_bos_token": False}
    assert Tokenizer(metadata).encode("")[-1:] == [spm.eos_id]
    assert Tokenizer(metadata).bos_id not in Tokenizer(metadata).encode("a")


def test_defaults_where_the_file_is_silent() -> None:
    metadata = dict(metadata_of("tiny-spm-llama2"))
    for key in ("bos_token_id", "eos_token_id", "unknown_token_id", "add_bos_token", "add_eos_token"):
        metadata.pop(f"tokenizer.ggml.{key}", None)
    spm = Tokenizer(metadata)
    assert (spm.bos_id, spm.eos_id, spm.unk_id, spm.add_bos, spm.add_eos) == (1, 2, 0, True, False)
    metadata = dict(metadata_of("tiny-bpe-llama3"))
    del metadata["tokenizer.ggml.add_bos_token"]
    assert Tokenizer(metadata).add_bos
    del metadata["tokenizer.ggml.bos_token_id"]
    llama3 = Tokenizer(metadata)
    assert llama3.bos_id is None and not llama3.add_bos
    metadata["tokenizer.ggml.add_bos_token"] = True
    with pytest.raises(TokenizerError, match="bos_token_id is missing"):
        Tokenizer(metadata)


def test_control_tokens_are_text_unless_asked_for() -> None:
    qwen2 = TINY["tiny-bpe-qwen2"]
    text = "<|im_start|>user\n<think><|im_end|>"
    plain = qwen2.encode(text)
    assert qwen2.token_to_id("<|im_start|>") not in plain
    assert qwen2.token_to_id("<think>") in plain  # user-defined: always
    parsed = qwen2.encode(text, parse_special=True)
    assert parsed[0] == qwen2.token_to_id("<|im_start|>") and parsed[-1] == qwen2.token_to_id("<|im_end|>")
    assert qwen2.decode(parsed, skip_special=True) == "user\n<think>"
    assert qwen2.decode(parsed) == qwen2.decode(plain) == text


def test_longest_special_token_wins() -> None:
    gemma = TINY["tiny-spm-gemma"]
    two, three = gemma.token_to_id("\n\n"), gemma.token_to_id("\n\n\n")
    assert gemma.encode("\n" * 5, add_special=False) == [three, two]
    many = "<h1>a</h1>" * 1000  # more matches than the first buffer holds
    ids = gemma.encode(many, add_special=False)
    assert ids.count(gemma.token_to_id("<h1>")) == 1000
    assert gemma.decode(ids) == many


def test_tokens_that_swallow_spaces() -> None:
    """Phi-3's special tokens take the white space after them; the file says nothing of it."""
    metadata = dict(metadata_of("tiny-spm-llama2"))
    metadata["general.name"] = "Phi-3 mini"
    phi3 = Tokenizer(metadata)
    assert phi3.encode("</s> \n\t a", False, True) == [2, *phi3.encode("a", False)]
    assert phi3.encode("<s> a", False, True) == [1, *phi3.encode(" a", False)]
    assert phi3.encode("a</s> ", False, True)[-1] == 2
    llama = TINY["tiny-spm-llama2"]
    assert llama.encode("</s> a", False, True) == [2, *llama.encode(" a", False)]


def test_space_prefix() -> None:
    llama = TINY["tiny-spm-llama2"]
    assert llama.space_prefix and not TINY["tiny-spm-gemma"].space_prefix
    ids = llama.encode("a", add_special=False)
    assert llama.decode_bytes(ids) == b" a" and llama.decode(ids) == "a"
    decoder = llama.stream_decoder()  # goes on from other text: the space counts
    assert "".join(map(decoder.push, ids)) + decoder.flush() == " a"
    bare = Tokenizer(metadata_of("tiny-spm-llama2") | {"tokenizer.ggml.add_space_prefix": False})
    assert bare.decode_bytes(bare.encode("a", add_special=False)) == b"a"
    assert bare.decode(bare.encode(" a")) == "<s> a"


def test_end_of_generation() -> None:
    assert spelled_ends("tiny-bpe-llama3") == {"<|end_of_text|>", "<|eot_id|>"}
    assert spelled_ends("tiny-bpe-qwen2") == {"<|endoftext|>", "<|im_end|>"}
    assert spelled_ends("tiny-spm-llama2") == {"</s>"}
    assert spelled_ends("tiny-spm-gemma") == {"<eos>", "<end_of_turn>"}
    assert TINY["tiny-bpe-llama3"].eot_id == TINY["tiny-bpe-llama3"].token_to_id("<|eot_id|>")
    tokens = ["<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|fim_prefix|>", "<|eom_id|>"]
    ends = with_tokens(tokens, 3)
    assert {ends.token_text(i) for i in ends.eog_ids} == {*tokens} - {"<|fim_prefix|>"}
    assert ends.special_ids["fim_pre"] == ends.token_to_id("<|fim_prefix|>")
    assert ends.eom_id == ends.token_to_id("<|eom_id|>")
    assert ends.eot_id == ends.token_to_id("<|endoftext|>")


def test_end_of_generation_by_spelling() -> None:
    """A token that is spelled like an end is one, whatever type the file gives it, unless it is plain text."""
    ends = with_tokens(["<|im_end|>", "<|eot_id|>"], 1)
    assert {ends.token_text(i) for i in ends.eog_ids} == {"<|im_end|>", "<|eot_id|>"}
    assert ends.encode("<|im_end|>", parse_special=True) == [ends.token_to_id("<|im_end|>")]
    assert len(ends.encode("<|im_end|>")) > 1
    ordinary = with_tokens(["<E", "OT", "<EOT", "<EOT>"], 1, ["< E", "O T", "<E OT", "<EOT >"])
    assert not ordinary.eog_ids and ordinary.encode("<EOT>", parse_special=True)[0] != ordinary.n_vocab - 1
    for type_, expected in ((1, set()), (4, set()), (3, {"</s>"})):
        html = with_tokens(["</s>"], type_)
        assert {html.token_text(i) for i in html.eog_ids} == expected


def test_end_token_inside_an_answer() -> None:
    harmony = with_tokens(["<|return|>", "<|call|>", "<|end|>"], 3)
    assert {harmony.token_text(i) for i in harmony.eog_ids} == {"<|return|>", "<|call|>"}
    assert harmony.eot_id is None
    phi = with_tokens(["<|end|>", "<|user|>"], 3)
    assert phi.eog_ids == {phi.eot_id} == {phi.token_to_id("<|end|>")}


# -- single tokens and odd input ----------------------------------------------------------------------------


def test_single_tokens() -> None:
    gpt2, spm = TINY["tiny-bpe-gpt2"], TINY["tiny-spm-llama2"]
    space = gpt2.token_to_id("Ġ")
    assert space is not None and gpt2.token_bytes(space) == b" " and gpt2.token_text(space) == " "
    assert gpt2.id_to_token(space) == "Ġ" and gpt2.token_to_id("no such token") is None
    half = gpt2.token_to_id("ð")
    assert half is not None and gpt2.token_bytes(half) == b"\xf0" and gpt2.token_text(half) == "\ufffd"
    newline = spm.token_to_id("<0x0A>")
    assert newline is not None and spm.token_bytes(newline) == b"\n"
    assert spm.token_bytes(2) == b"</s>" and spm.is_special(2) and not spm.is_user_defined(2)
    assert TINY["tiny-spm-gemma"].is_user_defined(7)
    assert "tiny" not in repr(gpt2) and "448" in repr(gpt2)


@pytest.mark.parametrize("name", TINY)
def test_ids_out_of_range(name: str) -> None:
    tokenizer = TINY[name]
    for bad in (-1, tokenizer.n_vocab, 2**40):
        for use in (tokenizer.token_bytes, tokenizer.token_text, tokenizer.id_to_token):
            with pytest.raises(TokenizerError, match=f"no token {bad}"):
                use(bad)
        for many in (tokenizer.decode, tokenizer.decode_bytes):
            with pytest.raises(TokenizerError, match=f"no token {bad}"):
                many([0, bad])
        with pytest.raises(TokenizerError, match=f"no token {bad}"):
            tokenizer.stream_decoder().push(bad)
    with pytest.raises(TypeError):
        tokenizer.token_bytes(1.0)  # type: ignore[arg-type]
    assert tokenizer.decode(np.array([70, 71])) == tokenizer.decode([70, 71])


def test_surrogates() -> None:
    for tokenizer in TINY.values():
        assert tokenizer.encode("a\ud83e\udd99b") == tokenizer.encode("a🦙b")
        assert tokenizer.encode("a\ud83eb\udd99") == tokenizer.encode("a\ufffdb\ufffd")


def test_bytes() -> None:
    for tokenizer in TINY.values():
        assert tokenizer.encode("é🦙 x".encode()) == tokenizer.encode("é🦙 x")
        assert tokenizer.encode(b"a\xffb\xf0\x9f\xa6") == tokenizer.encode("a\ufffdb\ufffd")


def test_supported() -> None:
    known = supported()
    assert known["llama"] == [] and {"llama-bpe", "smollm", "qwen2", "gpt-2", "default"} <= {*known["gpt2"]}
    assert all(pre.find(name) is not None for name in known["gpt2"])


@settings(max_examples=100, deadline=None)
@given(text=text)
def test_words_are_the_text(text: str) -> None:
    for cut in CUTS:
        assert "".join(cut(text)) == text


@pytest.mark.parametrize(("alias", "name"), pre.ALIASES.items())
def test_aliases_differ_in_name_only(alias: str, name: str) -> None:
    assert alias not in pre.PRE_TOKENIZERS and pre.find(alias) is pre.PRE_TOKENIZERS[name]


def test_paths_and_open_files() -> None:
    path = DATA / "tiny-bpe-gpt2.gguf"
    with GGUFFile.open(path) as file:
        from_file = Tokenizer.from_gguf(file)
    assert from_file.encode("Hello") == Tokenizer.from_gguf(str(path)).encode("Hello")
    with pytest.raises(GGUFError):
        Tokenizer.from_gguf(DATA / "absent.gguf")


def test_word_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "CACHE_WORDS", 50)
    tokenizer = Tokenizer.from_gguf(DATA / "tiny-bpe-gpt2.gguf")
    kind: Any = tokenizer._kind

    def cache() -> dict[str, tuple[int, ...]]:
        return kind._encoder._cache

    rng = random.Random(5)
    for _ in range(100):
        text = random_text(rng) + "x" * rng.randrange(60)
        assert tokenizer.encode(text) == TINY["tiny-bpe-gpt2"].encode(text)
        assert len(cache()) <= 50 and max(map(len, cache())) <= words.CACHE_CHARACTERS


@pytest.mark.parametrize("name", TINY)
def test_threads_share_a_tokenizer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "CACHE_WORDS", 200)
    tokenizer = Tokenizer.from_gguf(DATA / f"{name}.gguf")
    texts = [random_text(random.Random(i)) + english(300, i) for i in range(60)]
    expected = [TINY[name].encode(t) for t in texts]
    wrong: list[int] = []

    def work(seed: int) -> None:
        order = random.Random(seed).sample(range(len(texts)), len(texts))
        wrong.extend(i for i in order if tokenizer.encode(texts[i]) != expected[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def metadata_of(name: str) -> dict[str, Any]:
    with GGUFFile.open(DATA / f"{name}.gguf") as file:
        return file.metadata


def spelled_ends(name: str) -> set[str]:
    return {TINY[name].token_text(i) for i in TINY[name].eog_ids}


def with_tokens(tokens: list[str], type_: int, merges: list[str] | None = None) -> Tokenizer:
    """A byte-level vocabulary of the 256 bytes and these."""
    return Tokenizer(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "llama-bpe",
            "tokenizer.ggml.tokens": byte_alphabet() + tokens,
            "tokenizer.ggml.token_type": np.array([1] * 256 + [type_] * len(tokens), np.int32),
            "tokenizer.ggml.merges": merges or [],
        }
    )
