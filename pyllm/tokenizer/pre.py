"""Pre-tokenizers of byte-level BPE: regular expressions that cut text into words before anything is merged.

tokenizer.ggml.pre names one; the model's own tokenizer.json defines what it does. A pre-tokenizer is a list
of stages: each cuts every word of the stage before into what its expression matches and what lies between.
Where there is one stage, it matches everything, and the words are simply all its matches.

No expression here looks again and again over the same text, so that a long run of one letter, digit or of
spaces takes time in proportion to its length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Final


@dataclass(frozen=True)
class Threes:
    """A stage that cuts digits, all that its expression matches, into threes counted from the end."""

    expression: str
    isolated: bool = True  # cut before and after the digits too


@dataclass(frozen=True)
class PreTokenizer:
    """One row of the table."""

    stages: tuple[str | Threes, ...]
    whole_words: bool = False  # a word that is a token is not merged (tokenizer.json: ignore_merges)
    add_bos: bool = False  # where the file does not say
    normalize: str = ""  # NFC or NFKC: the normalizer of tokenizer.json; llama.cpp leaves it out

    def compile(self) -> Callable[[str], list[str]]:
        """The function that cuts text into words; together they are the text."""
        import regex

        if len(self.stages) == 1 and isinstance(self.stages[0], str):
            words: Callable[[str], list[str]] = regex.compile(self.stages[0]).findall
            return words
        splits = [_split(stage) for stage in self.stages]

        def cut(text: str) -> list[str]:
            words = [text]
            for split in splits:
                parts = {word: [part for part in split(word) if part] for word in set(words)}
                words = list(chain.from_iterable(map(parts.__getitem__, words)))
            return words

        return cut


def _split(stage: str | Threes) -> Callable[[str], list[str]]:
    """The function that cuts a word; some of the parts may be empty."""
    import regex

    if isinstance(stage, str):
        split: Callable[[str], list[str]] = regex.compile(f"({stage})").split
        return split
    digits, isolated = regex.compile(stage.expression), stage.isolated

    def threes(word: str) -> list[str]:
        parts, at = [], 0
        for match in digits.finditer(word):
            start, end = match.span()
            cuts = [*range(start + (end - start) % 3, end, 3)]
            for cut in [start, *cuts, end] if isolated else cuts:
                parts.append(word[at:cut])
                at = cut
        return [*parts, word[at:]]

    return threes


_CONTRACTION: Final = "'(?i:[stmd]|re|ve|ll)"
_SPACES: Final = r"\s*[\r\n]++|\s+(?!\S)|\s++"
_GPT2: Final = r"'(?:[stmd]|re|ve|ll)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s+(?!\S)|\s++"
# Digits one by one, then GPT-2's expression on what lies between, where a digit is as good as the end.
_DIGITS_GPT2: Final = r"\p{N}|'(?:[stmd]|re|ve|ll)| ?\p{L}++| ?[^\s\p{L}\p{N}]++|\s+(?![^\s\p{N}])|\s++"


def _cl100k(digits: str) -> str:
    """cl100k and its descendants: the number of digits that stay together is what differs."""
    return rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}++|{digits}| ?[^\s\p{{L}}\p{{N}}]++[\r\n]*+|{_SPACES}"


_UPPER: Final = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
_LOWER: Final = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"


def _o200k(digits: str, tail: str = f"(?:{_CONTRACTION})?", han: bool = True, line_end: str = r"[\r\n/]") -> str:
    """o200k and its descendants: words end where a lower-case letter is followed by an upper-case one.

    tail: what may follow a word; han: whether Chinese characters are letters.
    """
    upper, lower = (f"[{c}]" if han else rf"(?:(?!\p{{Han}})[{c}])" for c in (_UPPER, _LOWER))
    before = r"[^\r\n\p{L}\p{N}]?"
    return (
        rf"{before}{upper}*{lower}++{tail}|{before}{upper}++{lower}*+{tail}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]++{line_end}*+|{_SPACES}"
    )


_DIGIT: Final = r"\p{N}"
_DIGITS3: Final = r"\p{N}{1,3}+"
_LLAMA3: Final = _cl100k(_DIGITS3)
_QWEN2: Final = _cl100k(_DIGIT)
_GPT4O: Final = _o200k(_DIGITS3)
_CJK: Final = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
# An ASCII punctuation mark and letters, words of letters and marks, punctuation and symbols.
_DEEPSEEK_WORDS: Final = r"[!-/:-@\[-`{-~][A-Za-z]++|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]++| ?[\p{P}\p{S}]++"
_DEEPSEEK3: Final = rf"{_DEEPSEEK_WORDS}[\r\n]*+|{_SPACES}"
_MARKS: Final = "(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)"
_BLOOM: Final = f" ?[^{_MARKS}]++|[{_MARKS}]+(?= [^{_MARKS}])|[{_MARKS}]++"
# Letters with case, as Unicode had them in 2018.
_CASED: Final = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377"
    "\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556"
    "\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15"
    "\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe"
    "\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113"
    "\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184"
    "\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e"
    "\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
# Scripts of Asia that write no spaces.
_UNSPACED: Final = (
    "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff"
    "\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
_PUNCTUATION: Final = r"[\p{P}$+<=>^~|`]"

_gpt2: Final = PreTokenizer((_GPT2,))
_gpt2_nfc: Final = PreTokenizer((_GPT2,), normalize="NFC")
_digits: Final = PreTokenizer((_DIGITS_GPT2,))
_llama3: Final = PreTokenizer((_LLAMA3,), whole_words=True, add_bos=True)
_deepseek3: Final = PreTokenizer((_DIGITS3, _CJK, _DEEPSEEK3))

PRE_TOKENIZERS: Final[dict[str, PreTokenizer]] = {
    "gpt-2": _gpt2,
    "llama-bpe": _llama3,
    "qwen2": PreTokenizer((_QWEN2,), normalize="NFC"),
    "qwen35": PreTokenizer(
        (
            rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]++|\p{{N}}"
            rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]++[\r\n]*+|{_SPACES}",
        ),
        normalize="NFC",
    ),
    "gpt-4o": PreTokenizer((_GPT4O,)),
    "granite-embed-multi-97m": PreTokenizer((_GPT4O,), whole_words=True),
    "tekken": PreTokenizer((_o200k(_DIGIT, ""),), whole_words=True, add_bos=True),
    "smollm": _digits,
    "starcoder": _digits,
    "refact": _digits,
    "command-r": PreTokenizer((_DIGITS_GPT2,), normalize="NFC"),
    "exaone": PreTokenizer((_DIGITS_GPT2,), normalize="NFKC"),
    "mpt": _gpt2_nfc,
    "olmo": _gpt2_nfc,
    "falcon": PreTokenizer((_PUNCTUATION + "+", _GPT2, "[0-9][0-9][0-9]")),
    "falcon3": PreTokenizer((_PUNCTUATION + "+", _GPT2, "[0-9]")),
    "deepseek-llm": PreTokenizer(
        (
            r"[\r\n]",
            rf"\s?[{_CASED}]+",
            "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
            r"(?<!\s)\s++$",
            "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
            r"\p{N}+",
        )
    ),
    "deepseek-coder": PreTokenizer(
        (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", r"\p{N}")
    ),
    "deepseek-v3": _deepseek3,
    "dbrx": PreTokenizer((_LLAMA3,)),
    "glm4": PreTokenizer((_LLAMA3,), whole_words=True),
    "deepseek-r1-qwen": PreTokenizer((_QWEN2,)),
    "minicpm5": PreTokenizer((_DIGITS3, _cl100k(r"\p{N}++")), whole_words=True),
    "jais-2": PreTokenizer(
        (
            rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}++|{_DIGITS3}| ?[^\s\p{{L}}\p{{N}}]++[\r\n]*+"
            # after another space that did not match this, there is no line end to come
            r"|(?<![^\S\r\n])\s*[\r\n]++|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)"
            r"|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s",
        )
    ),
    "spark2_5": PreTokenizer((_DIGITS3, _CJK, rf"{_DEEPSEEK_WORDS}|[\r\n]|\s+(?!\S)|\s++", _DIGIT)),
    "youtu": PreTokenizer(
        (
            "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
            f"|[\u3105-\u312f]+|{_CJK}",
            _o200k(_DIGIT),
        ),
        whole_words=True,
    ),
    "bloom": PreTokenizer((_BLOOM,)),
    "viking": PreTokenizer((_BLOOM, _DIGIT)),
    "chameleon": PreTokenizer(
        (
            "<sentinel:[0-9]+>",
            "IMGIMG[A-I]{1,4}Z",
            r"[\t\n]|    |  ",
            _DIGIT,
            r"[\p{P}!-/:-@\[-`{-~]",
            _GPT2,
        ),
        add_bos=True,
    ),
    "tiny_aya": PreTokenizer((Threes(r"(?<!\d)\d++(?![\w\u00b2\u00b3\u00b9\u00bc-\u00be])"), _GPT4O)),
    "superbpe": PreTokenizer((r"\p{N}+", Threes(r"\d++", isolated=False))),
    "kimi-k2": PreTokenizer(
        (r"\p{Han}++|" + _o200k(_DIGITS3, han=False, line_end=r"[\r\n]"),),
    ),
    "bailingmoe": PreTokenizer(
        (
            rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}++|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]++[\r\n]*+"
            r"|\s*[\r\n]|\s+(?!\S)|\s++",
        )
    ),
    "seed-coder": PreTokenizer(
        (rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}++|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]++|{_SPACES}",)
    ),
    "ufakzeka": PreTokenizer((rf"[^\r\n\p{{L}}\p{{N}}]?\p{{L}}++|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]++[\r\n]*+|{_SPACES}",)),
    "laguna": PreTokenizer((r"\n+", _QWEN2)),
    "afmoe": PreTokenizer((Threes(r"\p{N}++"), _UNSPACED, _DEEPSEEK3)),
    "exaone-moe": PreTokenizer(
        (
            rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*+(?: \p{{L}}\p{{M}}*+)*+)++|\p{{N}}"
            r"| ?[^\s\p{L}\p{N}]++[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s++",
        )
    ),
}

# Other names for the same: a file says what it was converted from.
ALIASES: Final[dict[str, str]] = {
    "default": "gpt-2",
    "phi-2": "gpt-2",
    "jina-es": "gpt-2",
    "jina-de": "gpt-2",
    "jina-v1-en": "gpt-2",
    "jina-v2-es": "gpt-2",
    "jina-v2-de": "gpt-2",
    "jina-v2-code": "gpt-2",
    "roberta-bpe": "gpt-2",
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
    "falcon-h1": "llama-bpe",
    "pixtral": "llama-bpe",
    "midm-2.0": "llama-bpe",
    "lfm2": "llama-bpe",
    "jina-v5-nano": "llama-bpe",
    "chatglm-bpe": "dbrx",
    "smaug-bpe": "glm4",
    "glm5": "glm4",
    "megrez": "qwen2",
    "kormo": "qwen2",
    "f2llmv2": "qwen2",
    "stablelm2": "deepseek-r1-qwen",
    "hunyuan": "deepseek-r1-qwen",
    "solar-open": "deepseek-r1-qwen",
    "grok-2": "deepseek-r1-qwen",
    "codeshell": "smollm",
    "minerva-7b": "smollm",
    "mellum2": "smollm",
    "llama4": "gpt-4o",
    "kanana2": "gpt-4o",
    "talkie": "gpt-4o",
    "minimax-m2": "gpt-4o",
    "cohere2moe": "tiny_aya",
    "hunyuan-dense": "deepseek-v3",
    "joyai-llm": "deepseek-v3",
    "hy_v4": "deepseek-v3",
    "bailingmoe2": "bailingmoe",
    "llada-moe": "bailingmoe",
    "poro-chat": "bloom",
    "gpt3-finnish": "bloom",
}

# Names whose ids have been compared with the tokenizer of the model itself, or with ids that came with its
# vocabulary. The others are by rule: as the expression was published, which a test holds them to.
VERIFIED: Final = frozenset(
    {
        *("gpt-2", "llama-bpe", "smaug-bpe", "dbrx", "glm4", "qwen2", "qwen35", "tekken", "smollm", "starcoder"),
        *("refact", "command-r", "exaone", "mpt", "olmo", "falcon", "falcon3", "deepseek-llm", "deepseek-coder"),
        *("deepseek-v3", "joyai-llm"),
    }
)


def find(name: str) -> PreTokenizer | None:
    """The pre-tokenizer of this name, or None."""
    return PRE_TOKENIZERS.get(ALIASES.get(name, name))


def names() -> list[str]:
    """All names that `find` knows."""
    return sorted({*PRE_TOKENIZERS, *ALIASES})
