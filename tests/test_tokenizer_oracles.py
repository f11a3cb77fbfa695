"""The same vocabulary in Hugging Face `tokenizers` and in `sentencepiece`, and the same ids on random text."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizer_tools import (
    DATA,
    TINY_BPE,
    TINY_SPM,
    english,
    huggingface,
    random_text,
    sentencepiece_of,
)

from pyllm.gguf import GGUFFile
from pyllm.tokenizer import Tokenizer

pytestmark = pytest.mark.native


def read(path: Path) -> dict[str, Any]:
    with GGUFFile.open(path) as file:
        return file.metadata


def texts(seed: object, n: int) -> list[str]:
    rng = random.Random(str(seed))
    return [random_text(rng) for _ in range(n)] + [english(5000, 1)]


@pytest.mark.parametrize("name", TINY_BPE)
def test_tiny_byte_level_bpe(name: str) -> None:
    compare_bpe(read(DATA / f"{name}.gguf"), 500)


@pytest.mark.parametrize(
    "name",
    ["llama-bpe", "qwen2", "gpt-2", "command-r", "deepseek-coder", "falcon", "mpt", "refact", "starcoder"],
)
def test_real_byte_level_bpe(name: str, shared: Path) -> None:
    compare_bpe(read(shared / f"goldens/vocabs/ggml-vocab-{name}.gguf"), 150)


def test_smollm2(smollm2: Path) -> None:
    compare_bpe(read(smollm2), 150)


def compare_bpe(metadata: dict[str, Any], n: int) -> None:
    tokenizer, oracle = Tokenizer(metadata), huggingface(metadata)
    for text in texts(metadata["tokenizer.ggml.pre"], n):
        ids = oracle.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text, add_special=False, parse_special=True) == ids, text
        if not any(map(tokenizer.is_user_defined, ids)):  # there decoded as if spelled in the byte alphabet
            assert tokenizer.decode(ids) == oracle.decode(ids, skip_special_tokens=False)
    rng = np.random.default_rng(0)
    ordinary = [i for i in range(tokenizer.n_vocab) if not tokenizer.is_special(i)]
    for _ in range(200):  # mostly invalid UTF-8
        ids = rng.choice(ordinary, 20).tolist()
        assert tokenizer.decode(ids) == oracle.decode(ids)


def unchanged(metadata: dict[str, Any]) -> None:
    """As the file has it."""


def unused(metadata: dict[str, Any]) -> None:
    """A third of the longer tokens are of type unused: merged through, never put out."""
    rng = random.Random(3)
    types = metadata["tokenizer.ggml.token_type"].copy()
    for i, token in enumerate(metadata["tokenizer.ggml.tokens"]):
        if types[i] == 1 and len(token) > 1 and rng.random() < 0.3:
            types[i] = 5
    metadata["tokenizer.ggml.token_type"] = types


def no_bytes(metadata: dict[str, Any]) -> None:
    """No byte fallback: unknown text is the unknown token."""
    types = metadata["tokenizer.ggml.token_type"].copy()
    tokens = metadata["tokenizer.ggml.tokens"] = list(metadata["tokenizer.ggml.tokens"])
    for i in np.flatnonzero(types == 6):
        types[i], tokens[i] = 1, f"\ue000{i}"
    metadata["tokenizer.ggml.token_type"] = types


def across_words(metadata: dict[str, Any]) -> None:
    """Tokens with spaces in their middle, so that text cannot be cut at words."""
    tokens = metadata["tokenizer.ggml.tokens"] = list(metadata["tokenizer.ggml.tokens"])
    scores = metadata["tokenizer.ggml.scores"] = metadata["tokenizer.ggml.scores"].copy()
    for i, token in enumerate(["e▁", "e▁t", "s▁", "d▁t", "▁of▁", "of▁", "▁▁H", ",▁", ".▁", ",▁a"]):
        if token not in tokens:
            tokens[-1 - i], scores[-1 - i] = token, -float(i) / 2
    assert "e▁t" in tokens


@pytest.mark.parametrize("change", [unchanged, unused, no_bytes, across_words])
@pytest.mark.parametrize("name", TINY_SPM)
def test_tiny_sentencepiece(name: str, change: Any) -> None:
    metadata = read(DATA / f"{name}.gguf")
    change(metadata)
    compare_spm(metadata, 500)


@pytest.mark.parametrize("change", [unchanged, unused])
@pytest.mark.parametrize("name", ["llama-spm", "baichuan"])
def test_real_sentencepiece(name: str, change: Any, shared: Path) -> None:
    metadata = read(shared / f"goldens/vocabs/ggml-vocab-{name}.gguf")
    change(metadata)
    compare_spm(metadata, 150)


def compare_spm(metadata: dict[str, Any], n: int) -> None:
    metadata.setdefault("tokenizer.ggml.unknown_token_id", metadata["tokenizer.ggml.tokens"].index("<unk>"))
    tokenizer, oracle = Tokenizer(metadata), sentencepiece_of(metadata)
    for text in texts(n, n):
        # there NUL ends the text, and U+2581 is a space even where user-defined tokens are looked for
        text = text.replace("\0", "").replace("\u2581", " ")
        if text:
            ids = oracle.encode(text)
            assert tokenizer.encode(text, add_special=False) == ids, text
            if tokenizer.unk_id not in ids:
                assert tokenizer.decode(ids) == oracle.decode(ids)
