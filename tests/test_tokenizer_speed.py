"""How fast text is tokenized and a tokenizer built; limits are far below what is usual, for slow machines."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tokenizer_tools import DATA, TINY_BPE, TINY_SPM, english

from pyllm.gguf import GGUFFile
from pyllm.tokenizer import Tokenizer

pytestmark = pytest.mark.alone
MB = 1_000_000


def measure(benchmark: Any, tokenizer: Tokenizer, text: str) -> None:
    """At least 1 MB/s, by the median of three rounds."""
    ids = benchmark.pedantic(tokenizer.encode, (text,), rounds=3, warmup_rounds=1)
    assert tokenizer.decode(ids, skip_special=True) == text
    seconds = benchmark.stats.stats.median if benchmark.enabled else 0
    benchmark.extra_info["MB/s"] = len(text) / MB / seconds if seconds else None
    assert seconds < len(text) / MB


@pytest.mark.parametrize("name", TINY_BPE + TINY_SPM)
def test_english(benchmark: Any, name: str) -> None:
    measure(benchmark, Tokenizer.from_gguf(DATA / f"{name}.gguf"), english(MB // 2))


def test_english_smollm2(benchmark: Any, smollm2: Path) -> None:
    measure(benchmark, Tokenizer.from_gguf(smollm2), english(MB // 2))


@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "gpt-2", "llama-spm"])
def test_english_real_vocabularies(benchmark: Any, name: str, shared: Path) -> None:
    tokenizer = Tokenizer.from_gguf(shared / f"goldens/vocabs/ggml-vocab-{name}.gguf")
    measure(benchmark, tokenizer, english(MB // 2))


@pytest.mark.parametrize("name", TINY_BPE + TINY_SPM)
@pytest.mark.parametrize("unit", ["a", " ", "\n", " \n", "1", "!", "'", "<", "é", "中", "a ", "\n\n\n\n<"])
def test_long_runs_take_linear_time(name: str, unit: str) -> None:
    """Long text without a place to cut, and with the worst places: many seconds mean a loop in a loop."""
    tokenizer = Tokenizer.from_gguf(DATA / f"{name}.gguf")
    text = unit * ((MB if unit in ("a", " ") else MB // 4) // len(unit))
    start = time.perf_counter()
    ids = tokenizer.encode(text, add_special=False, parse_special=True)
    assert time.perf_counter() - start < 20
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(("name", "seconds"), [("gpt-2", 0.1), ("llama-spm", 0.1), ("qwen2", 0.4), ("llama-bpe", 0.8)])
def test_building_is_quick(name: str, seconds: float, shared: Path) -> None:
    with GGUFFile.open(shared / f"goldens/vocabs/ggml-vocab-{name}.gguf") as file:
        Tokenizer(file.metadata)  # imports
        times = []
        for _ in range(5):
            start = time.perf_counter()
            Tokenizer(file.metadata)
            times.append(time.perf_counter() - start)
    assert min(times) < seconds
