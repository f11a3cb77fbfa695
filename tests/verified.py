"""How each architecture, tokenizer and tensor type is verified, read from the tests themselves: docs/VERIFIED.md.

    python tests/verified.py

writes the file anew. What the code has and no test verifies is an error (Unverified), so that the file cannot be
written, or its test pass, without it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

if __package__ is None and __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parent.parent))  # behind an installed pyllm

import random_models
import test_dequantize
import test_gguf
import test_models
import test_real_models
import test_tokenizer
import test_types
import tokenizer_published

from pyllm._lib import ffi, lib
from pyllm.gguf.header import tensor_types
from pyllm.models import architectures
from pyllm.tokenizer import pre
from pyllm.tokenizer.tokenizer import KINDS

TESTS: Final = Path(__file__).resolve().parent
TARGET: Final = TESTS.parent / "docs" / "VERIFIED.md"
#: goldens that are not named after their architecture
GOLDENS: Final = {
    "gptoss": "gpt_oss", "llama_hd": "llama", "llama_tied": "llama", "llama_untied": "llama", "llama_yarn": "llama",
    "mistral": "llama", "mixtral": "llama", "phi3_partial": "phi3", "qwen2_yarn": "qwen2",
}  # fmt: skip
#: real models: architecture and, of byte-level BPE, pre-tokenizer
REAL: Final = {
    "smollm2": ("llama", "smollm"), "gemma3-270m": ("gemma3", ""), "qwen2.5-coder-0.5b": ("qwen2", "qwen2"),
    "qwen2.5-coder-1.5b": ("qwen2", "qwen2"),
}  # fmt: skip
#: tokenizer.ggml.model -> tests that hold it to an implementation that is not ours, and which
TOKENIZERS: Final = {
    "gpt2": [
        ("test_tokenizer_oracles.py::test_real_byte_level_bpe", "`tokenizers`, random text, 9 vocabularies"),
        ("test_tokenizer.py::test_ids_of_real_vocabularies", "recorded ids of `tokenizers`"),
        ("test_tokenizer.py::test_ids_of_llama_cpp", "llama.cpp's own test files"),
        ("test_real_models.py::test_the_text_becomes_the_same_ids", "llama.cpp on real models"),
    ],
    "llama": [
        ("test_tokenizer_oracles.py::test_real_sentencepiece", "`sentencepiece`, random text, 2 vocabularies"),
        ("test_tokenizer_oracles.py::test_tiny_sentencepiece", "`sentencepiece`, tokens unused, without bytes, ..."),
        ("test_tokenizer.py::test_ids_of_real_vocabularies", "recorded ids of `sentencepiece`"),
        ("test_real_models.py::test_the_text_becomes_the_same_ids", "llama.cpp on a real model (gemma)"),
    ],
    "t5": [
        ("test_tokenizer_kinds.py::test_unigram", "`sentencepiece`, random text, its tables of replacements"),
        ("test_tokenizer_kinds.py::test_unigram_of_a_real_vocabulary", "`sentencepiece`, random text, XLM-RoBERTa"),
    ],
    "bert": [
        ("test_tokenizer_kinds.py::test_wordpiece", "`tokenizers`, random text"),
        ("test_tokenizer_kinds.py::test_wordpiece_of_a_real_vocabulary", "`tokenizers`, random text and recorded ids"),
    ],
}
#: vocabularies of the tests that are not byte-level BPE with a pre-tokenizer of that name
OTHER_VOCABULARIES: Final = {"llama-spm", "phi-3"}
#: types that the gguf package has no code for, and what test_dequantize.py holds them to
BY_DEFINITION: Final = {"Q1_0": "definition", "Q2_0": "definition", "F64": "numpy"}

INTRO: Final = """# How each part is verified

Written by `python tests/verified.py` from the tests' own lists; `tests/test_verified.py` fails where this file, the
code and the tests do not agree, or where something has no test against an implementation that is not ours.
"""
ARCHITECTURES: Final = """## Architectures

**transformers**: the goldens named, small models with random weights whose logits and greedy continuations Hugging
Face transformers computed in float32: `test_models.py` (every logit within 3e-4 at every instruction-set level, 24
greedy tokens of each prompt). **llama.cpp, random weights**: logits of the same file by llama-cpp-python:
`test_random_models.py`. **Real weights**: `test_real_models.py` and `test_smollm2.py`, against transformers (SmolLM2,
Gemma 3, Qwen2.5-Coder 0.5B) and llama.cpp on the weights in float32: ids of text and chats, greedy continuations,
perplexity.
"""
TOKENIZER: Final = """## Tokenizers

`tokenizer.ggml.model`, the tests that hold it to another implementation, and which that is:
"""
PRE: Final = """### Pre-tokenizers

`tokenizer.ggml.pre` of byte-level BPE. **Expressions**: the words of random text and of long runs are those of the
published expressions in the engine of `tokenizers`: `test_pre_tokenizers.py`. **Ids**: the ids of a real vocabulary
are those of `tokenizers` or llama.cpp: `test_tokenizer.py`, `test_tokenizer_oracles.py`, `test_real_models.py`; or
they were compared once with those of the model's own tokenizer (`pre.VERIFIED`). A name in brackets is the one that it
is another name of.
"""
TYPES: Final = """## Tensor types

**Values**: random blocks dequantize to the bits of the `gguf` package at every level, and (golden) the tensors of a
model to recorded checksums; Q1_0 and Q2_0, for which that package has no code, to their definitions:
`test_dequantize.py`. I8 to I64 are read as it writes them: `test_gguf.py`.
**Model**: (test) logits within 3e-4 of transformers' on the dequantized weights, and in the default mode as near as
llama.cpp's: `test_models.py`; (equal) with float32 activations, which are those of all modes for `widened` types, the
same bits as with the same weights in float32: `test_types.py`.
**Matmul**: what the weights are multiplied with by kernels of their own, which `checkkern` holds to the reference bit
for bit at every level; `widened` types become float32 first. What has none of these is data: such tensors are listed,
and a matrix of that type is refused by name (`test_models.py`).
"""


class Unverified(Exception):
    """Something has no test."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def architecture_rows() -> list[list[str]]:
    rows = []
    for name in architectures():
        goldens = [g for g in test_models.MODELS if GOLDENS.get(g, g) == name]
        peer = [m for m in random_models.MODELS if m.split("+")[0].replace("-", "_") == name]
        real = [m for m in test_real_models.MODELS if REAL[m][0] == name]
        if not goldens and not peer:
            raise Unverified(f"architecture {name} is neither in test_models.MODELS nor in random_models.MODELS")
        rows.append([f"`{name}`", ", ".join(goldens), ", ".join(peer), ", ".join(real)])
    return rows


def tokenizer_rows() -> list[list[str]]:
    rows = []
    for name in KINDS:
        if name not in TOKENIZERS:
            raise Unverified(f"tokenizer {name} has no line in verified.TOKENIZERS")
        for test, oracle in TOKENIZERS[name]:
            file, function = test.split("::")
            if not re.search(rf"^def {function}\(", (TESTS / file).read_text(encoding="utf-8"), flags=re.M):
                raise Unverified(f"there is no test {test}")
            rows.append([f"`{name}`", f"`{test}`", oracle])
    return rows


def pre_rows() -> list[list[str]]:
    rows = []
    vocabularies = {*test_tokenizer.REQUIRED, *test_tokenizer.OTHERS} - OTHER_VOCABULARIES
    vocabularies |= {REAL[m][1] for m in test_real_models.MODELS}
    for name in pre.names():
        row = pre.ALIASES.get(name, name)
        published = "test" if row in tokenizer_published.STAGES else ""
        ids = "test" if row in vocabularies else "once" if {name, row} & pre.VERIFIED else ""
        if not published and not ids:
            raise Unverified(f"pre-tokenizer {name} is compared neither by its words nor by ids")
        rows.append([f"`{name}`" + (f" (`{row}`)" if row != name else ""), published, ids])
    return rows


def type_rows() -> list[list[str]]:
    rows = []
    for t in sorted(tensor_types().values(), key=lambda t: t.id):
        known = lib.pl_dequantize(t.id, ffi.NULL, ffi.NULL, 0) == 0
        values = BY_DEFINITION.get(t.name, "")
        if t.name in test_dequantize.TYPES:
            values = "`gguf`" + ("" if t.name in test_dequantize.NO_GOLDEN else ", golden")
        if t.name in test_gguf.NUMBERS and not known:
            values = "`gguf`"
        model = ", ".join(
            word for word, types in (("test", test_models.TYPES), ("equal", test_types.TYPES)) if t.name in types
        )
        if known and not values:
            raise Unverified(f"type {t.name} has code and no test of its values")
        if (known and not model) or (t.act >= 0 and "test" not in model):
            raise Unverified(f"type {t.name} has a matmul, and no model in test_models or test_types is of it")
        matmul = {0: "float32", 1: "8-bit blocks"}.get(t.act, "widened" if known else "")
        rows.append([t.name, values, model, matmul])
    return rows


def text() -> str:
    """docs/VERIFIED.md. Unverified where something has no test."""
    return "\n".join(
        [
            INTRO,
            ARCHITECTURES,
            table(["architecture", "transformers", "llama.cpp, random weights", "real weights"], architecture_rows()),
            TOKENIZER,
            table(["model", "test", "oracle"], tokenizer_rows()),
            PRE,
            table(["name", "expressions", "ids"], pre_rows()),
            TYPES,
            table(["type", "values", "model", "matmul"], type_rows()),
        ]
    )


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
