"""Every pre-tokenizer against its published form, run by another engine of regular expressions; and its speed."""

from __future__ import annotations

import random
import time

import pytest
from tokenizer_published import STAGES, words
from tokenizer_tools import english, random_text

from pyllm.errors import TokenizerError
from pyllm.tokenizer import Tokenizer, pre

BY_IDS = {"falcon", "falcon3"}  # compared in test_tokenizer_oracles.py, by their vocabularies


def runs() -> list[str]:
    """Runs of spaces, line ends and digits of many lengths, before and after other things."""
    spaces = [
        a + " " * n + x + " " * m
        for n in (0, 1, 3, 5, 31, 700, 1100)
        for m in (0, 1, 2)
        for a in ("", "a", "!", "\n")
        for x in ("b", "\n", "中", "1", "", "!\n \n")
    ]
    digits = ["1" * n + x for n in range(12) for x in ("a", ".", " ", "_", "", "中", "²")]
    return [*spaces, *digits, "<sentinel:12> IMGIMGABZ IMGIMGABCDEZ", "a b c de f'll g'LLh", "\t \n  x\r\n\r\n\x85 y"]


def test_every_row_has_its_published_form() -> None:
    assert STAGES.keys() | BY_IDS == pre.PRE_TOKENIZERS.keys() and not STAGES.keys() & BY_IDS
    assert set(pre.names()) >= pre.VERIFIED


@pytest.mark.parametrize("name", STAGES)
def test_words(name: str) -> None:
    rng = random.Random(name)
    texts = [random_text(rng) for _ in range(400)] + runs() + [english(5000, 1)]
    cut = pre.PRE_TOKENIZERS[name].compile()
    for text, expected in zip(texts, words(name, texts), strict=True):
        assert cut(text) == expected, text


@pytest.mark.parametrize("name", pre.PRE_TOKENIZERS)
@pytest.mark.parametrize("unit", ["a", "A", " ", "\n", " \n", "1", "!", "'", "é", "中", "a ", "aA", "\u0301", "ǅ"])
def test_long_runs_take_linear_time(name: str, unit: str) -> None:
    """Some milliseconds; a loop in a loop would take many seconds."""
    text = "".join(unit * 12_000 + end for end in ("x", "1", "中", ""))
    cut = pre.PRE_TOKENIZERS[name].compile()
    start = time.process_time()
    words = cut(text)
    assert time.process_time() - start < 1
    assert "".join(words) == text


def test_unknown_name() -> None:
    metadata = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.merges": []}
    with pytest.raises(TokenizerError, match=r"unknown pre-tokenizer 'sophia'.*supported: .*gpt-2"):
        Tokenizer(metadata | {"tokenizer.ggml.pre": "sophia"})
