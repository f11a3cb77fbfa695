"""The pre-tokenizers as published: built from the parts that the models' tokenizer.json name, run by `tokenizers`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from tokenizers import Regex, pre_tokenizers

from pyllm.tokenizer.pre import _CASED

_SPACES: Final = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_O200K: Final = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
    rf"|%s| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)
_TAIL: Final = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_GPT4O: Final = _O200K % (_TAIL, _TAIL, r"\p{N}{1,3}")
_CJK: Final = "[一-龥\u3040-ゟ゠-ヿ]+"
_DEEPSEEK: Final = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^"""
    "\r\n"
    r"\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
)
_DEEPSEEK3: Final = _DEEPSEEK + "[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
_BLOOM: Final = " ?[^(\\s|.,!?…。，、।۔،)]+"
_DIGITS: Final = pre_tokenizers.Digits(individual_digits=True)
_HAN: Final = r"&&[^\p{Han}]]"

# What tokenizer.json lists under pre_tokenizer, without ByteLevel; expressions are Split, behavior Isolated.
# Falcon's are not here: they look for digits in the spelling of bytes, which shows in ids alone.
STAGES: Final[dict[str, tuple[Any, ...]]] = {
    "gpt-2": (_GPT2,),
    "mpt": (_GPT2,),
    "olmo": (_GPT2,),
    "llama-bpe": (_CL100K % r"\p{N}{1,3}",),
    "dbrx": (_CL100K % r"\p{N}{1,3}",),
    "glm4": (_CL100K % r"\p{N}{1,3}",),
    "qwen2": (_CL100K % r"\p{N}",),
    "deepseek-r1-qwen": (_CL100K % r"\p{N}",),
    "qwen35": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + _SPACES,
    ),
    "gpt-4o": (_GPT4O,),
    "granite-embed-multi-97m": (_GPT4O,),
    "tekken": (_O200K % ("", "", r"\p{N}"),),
    "smollm": (_DIGITS, _GPT2),
    "starcoder": (_DIGITS, _GPT2),
    "refact": (_DIGITS, _GPT2),
    "command-r": (_DIGITS, _GPT2),
    "exaone": (_DIGITS, _GPT2),
    "deepseek-llm": (
        "[\r\n]",
        rf"\s?[{_CASED}]+",
        "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
        r"\s+$",
        "[一-龥ࠀ-一가-\ud7ff]+",
        pre_tokenizers.Digits(individual_digits=False),
    ),
    "deepseek-coder": ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", _DIGITS),
    "deepseek-v3": (r"\p{N}{1,3}", _CJK, _DEEPSEEK3),
    "minicpm5": (r"\p{N}{1,3}", _CL100K % r"\p{N}+"),
    "jais-2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)"
        r"|\s{1,2}(?!\S)|\s{1}",
    ),
    "spark2_5": (r"\p{N}{1,3}", _CJK, _DEEPSEEK + "|[\r\n]|\\s+(?!\\S)|\\s+", r"\p{N}"),
    "youtu": (
        "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + _CJK,
        _O200K % (_TAIL, _TAIL, r"\p{N}"),
    ),
    "bloom": (_BLOOM,),
    "viking": (_BLOOM, r"\p{N}"),
    "chameleon": (
        "<sentinel:[0-9]+>",
        "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
        "([\t\n]|    |  )",
        _DIGITS,
        pre_tokenizers.Punctuation("isolated"),
        _GPT2,
    ),
    "tiny_aya": (r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O),
    "superbpe": (r"\p{N}+", r"(?=(\d{3})+(?!\d))"),
    "kimi-k2": (
        r"[\p{Han}]+|"
        + (_O200K % (_TAIL, _TAIL, r"\p{N}{1,3}"))
        .replace(_UPPER, "[" + _UPPER + _HAN)
        .replace(_LOWER, "[" + _LOWER + _HAN)
        .replace(r"[\r\n/]", r"[\r\n]"),
    ),
    "bailingmoe": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    ),
    "seed-coder": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|" + _SPACES,
    ),
    "ufakzeka": (r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",),
    "laguna": (r"[^\n]+|[\n]+", _CL100K % r"\p{N}"),
    "afmoe": (
        r"\p{N}{1,2}(?=(?:\p{N}{3})+(?!\p{N}))|\p{N}{3}(?=(?:\p{N}{3})*(?!\p{N}))|\p{N}{1,2}(?!\p{N})",
        "[一-鿿㐀-䶿\uf900-\ufaff\u3040-ゟ゠-ヿ･-ﾟ⼀-\u2fdfเ-\u0e7f\u0e80-\u0effក-\u17ffက-႟ꩠ-ꩿꧠ-\ua9ff가-\ud7afᄀ-ᇿ]+",
        _DEEPSEEK3,
    ),
    "exaone-moe": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
    ),
}


def published(name: str) -> list[Any]:
    """The stages of this name of pre.PRE_TOKENIZERS."""
    return [pre_tokenizers.Split(Regex(s), "isolated") if isinstance(s, str) else s for s in STAGES[name]]


def words(name: str, texts: Iterable[str]) -> Iterator[list[str]]:
    """The words of each text."""
    whole = pre_tokenizers.Sequence(published(name))
    for text in texts:
        yield [word for word, _ in whole.pre_tokenize_str(text)]
