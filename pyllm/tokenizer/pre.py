"""Pre-tokenizers of byte-level BPE: regular expressions that cut text into words before anything is merged.

tokenizer.ggml.pre names one; the model's own tokenizer.json defines what it does. A pre-tokenizer is a list
of stages: each cuts every word of the stage before into what its expression matches and what lies between.
Where there is one stage, it matches everything, and the words are simply all its matches.

No expression here has a quantifier inside a quantifier, so that a long run of one letter or of spaces takes
time in proportion to its length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class PreTokenizer:
    """One row of the table."""

    stages: tuple[str, ...]
    whole_words: bool = False  # a word that is a token is not merged (tokenizer.json: ignore_merges)
    add_bos: bool = False  # where the file does not say
    nfc: bool = False  # tokenizer.json has the normalizer NFC; llama.cpp leaves it out

    def compile(self) -> Callable[[str], list[str]]:
        """The function that cuts text into words; together they are the text."""
        import regex

        if len(self.stages) == 1:
            words: Callable[[str], list[str]] = regex.compile(self.stages[0]).findall
            return words
        splits = [regex.compile(f"({stage})").split for stage in self.stages]

        def cut(text: str) -> list[str]:
            words = [text]
            for split in splits:
                words = [part for word in words for part in split(word) if part]
            return words

        return cut


_GPT2: Final = r"'(?:[stmd]|re|ve|ll)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s+(?!\S)|\s++"
# Digits one by one, then GPT-2's expression on what lies between, where a digit is as good as the end.
_DIGITS_GPT2: Final = r"\p{N}|'(?:[stmd]|re|ve|ll)| ?\p{L}++| ?[^\s\p{L}\p{N}]++|\s+(?![^\s\p{N}])|\s++"
# cl100k and its descendants: the number of digits that stay together is what differs.
_CL100K: Final = (
    r"'(?i:[stmd]|re|ve|ll)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}++|{}| ?[^\s\p{{L}}\p{{N}}]++[\r\n]*+"
    r"|\s*[\r\n]++|\s+(?!\S)|\s++"
)
_LLAMA3: Final = _CL100K.format(r"\p{N}{1,3}")
_QWEN2: Final = _CL100K.format(r"\p{N}")

_gpt2: Final = PreTokenizer((_GPT2,))
_gpt2_nfc: Final = PreTokenizer((_GPT2,), nfc=True)
_digits: Final = PreTokenizer((_DIGITS_GPT2,))
_llama3: Final = PreTokenizer((_LLAMA3,), whole_words=True, add_bos=True)
_qwen2: Final = PreTokenizer((_QWEN2,), nfc=True)

PRE_TOKENIZERS: Final[dict[str, PreTokenizer]] = {
    "gpt-2": _gpt2,
    "llama-bpe": _llama3,
    "qwen2": _qwen2,
    "smollm": _digits,
    "starcoder": _digits,
    "refact": _digits,
    "command-r": PreTokenizer((_DIGITS_GPT2,), nfc=True),
    "mpt": _gpt2_nfc,
    "olmo": _gpt2_nfc,
    "falcon": PreTokenizer((r"[\p{P}$+<=>^~|`]+", _GPT2, r"[0-9][0-9][0-9]")),
    "deepseek-coder": PreTokenizer(
        (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", r"\p{N}")
    ),
    "dbrx": PreTokenizer((_LLAMA3,)),
    "glm4": PreTokenizer((_LLAMA3,), whole_words=True),
    "deepseek-r1-qwen": PreTokenizer((_QWEN2,)),
}

# Other names for the same: a file says what it was converted from.
ALIASES: Final[dict[str, str]] = {
    "default": "gpt-2",
    "phi-2": "gpt-2",
    "jina-es": "gpt-2",
    "jina-de": "gpt-2",
    "jina-v2-es": "gpt-2",
    "jina-v2-de": "gpt-2",
    "gigachat": "gpt-2",
    "a.x-4.0": "gpt-2",
    "mellum": "gpt-2",
    "modern-bert": "gpt-2",
    "exaone4": "gpt-2",
    "jais": "gpt-2",
    "trillion": "gpt-2",
    "granite-docling": "gpt-2",
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "falcon3": "llama-bpe",
    "falcon-h1": "llama-bpe",
    "pixtral": "llama-bpe",
    "midm-2.0": "llama-bpe",
    "lfm2": "llama-bpe",
    "jina-v5-nano": "llama-bpe",
    "smaug-bpe": "dbrx",
    "chatglm-bpe": "dbrx",
    "glm5": "glm4",
    "megrez": "qwen2",
    "kormo": "qwen2",
    "f2llmv2": "qwen2",
    "stablelm2": "deepseek-r1-qwen",
    "hunyuan": "deepseek-r1-qwen",
    "solar-open": "deepseek-r1-qwen",
    "grok-2": "deepseek-r1-qwen",
    "codeshell": "smollm",
    "exaone": "smollm",
    "minerva-7b": "smollm",
    "mellum2": "smollm",
}


def find(name: str) -> PreTokenizer | None:
    """The pre-tokenizer of this name, or None."""
    return PRE_TOKENIZERS.get(ALIASES.get(name, name))


def names() -> list[str]:
    """All names that `find` knows."""
    return sorted({*PRE_TOKENIZERS, *ALIASES})
