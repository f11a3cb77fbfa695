"""Which of GGUF's pre-tokenizers (tokenizer.ggml.pre) is that of a tokenizer.json, found by what it says it does.

tokenizer.json lists normalizers and pre-tokenizers with their regular expressions. They are brought into one spelling
and looked up, so that a name is only given where the expressions are known to be the same.
"""

from __future__ import annotations

import re
from typing import Any, Final

from ..errors import ConvertError
from ..tokenizer.pre import _CASED as CASED

GPT2: Final = "gpt2"  # the expression that the step ByteLevel has of its own
DIGITS: Final = "digits"  # each digit alone
NUMBERS: Final = "numbers"  # digits that touch stay together
PUNCTUATION: Final = "punctuation"  # what touches stays together

_CONTRACTIONS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES: Final = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_HAN: Final = r"&&[^\p{Han}]]"
_CJK: Final = "[一-龥\u3040-ゟ゠-ヿ]+"


def _cl100k(digits: str) -> str:
    return rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"


def _o200k(digits: str, tail: str = _CONTRACTIONS + "?", han: bool = True, line_end: str = r"[\r\n/]") -> str:
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    if not han:
        upper, lower = f"[{upper}{_HAN}", f"[{lower}{_HAN}"
    before = r"[^\r\n\p{L}\p{N}]?"
    return (
        rf"{before}{upper}*{lower}+{tail}|{before}{upper}+{lower}*{tail}|{digits}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+{line_end}*|{_SPACES}"
    )


_DIGITS3: Final = r"\p{N}{1,3}"
_GPT4O: Final = _o200k(_DIGITS3)
_DEEPSEEK: Final = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"""
)
_DEEPSEEK_V3: Final = _DEEPSEEK + r"[\r\n]*|" + _SPACES
_BLOOM: Final = r" ?[^(\s|.,!?…。，、।۔،)]+"
_DEEPSEEK_CODER: Final = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+")
_DEEPSEEK_LLM: Final = (
    r"[\r\n]",
    rf"\s?[{CASED}]+",
    "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
    r"\s+$",
    "[一-龥ࠀ-一가-\ud7ff]+",
)

#: (name, normalizer, steps, whole words that are tokens stay whole: None for any)
KNOWN: Final[tuple[tuple[str, str, tuple[str, ...], bool | None], ...]] = (
    ("llama-bpe", "", (_cl100k(_DIGITS3),), True),
    ("dbrx", "", (_cl100k(_DIGITS3),), False),
    ("qwen2", "NFC", (_cl100k(r"\p{N}"),), None),
    ("deepseek-r1-qwen", "", (_cl100k(r"\p{N}"),), None),
    (
        "qwen35",
        "NFC",
        (
            rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
            rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}",
        ),
        None,
    ),
    ("gpt-2", "", (GPT2,), None),
    ("olmo", "NFC", (GPT2,), None),
    ("smollm", "", (DIGITS, GPT2), None),
    ("command-r", "NFC", (DIGITS, GPT2), None),
    ("exaone", "NFKC", (DIGITS, GPT2), None),
    ("falcon", "", (PUNCTUATION, GPT2, NUMBERS, "[0-9][0-9][0-9]"), None),
    ("falcon", "", (PUNCTUATION, GPT2, "[0-9][0-9][0-9]"), None),
    ("falcon3", "", (PUNCTUATION, GPT2, DIGITS), None),
    ("tekken", "", (_o200k(r"\p{N}", ""),), None),
    ("gpt-4o", "", (_GPT4O,), False),
    ("granite-embed-multi-97m", "", (_GPT4O,), True),
    ("deepseek-v3", "", (_DIGITS3, _CJK, _DEEPSEEK_V3), None),
    ("deepseek-coder", "", (*_DEEPSEEK_CODER, DIGITS), None),
    ("deepseek-coder", "", (*_DEEPSEEK_CODER, r"\p{N}"), None),
    ("deepseek-llm", "", (*_DEEPSEEK_LLM, NUMBERS), None),
    ("deepseek-llm", "", (*_DEEPSEEK_LLM, r"\p{N}+"), None),
    ("minicpm5", "", (_DIGITS3, _cl100k(r"\p{N}+")), True),
    ("spark2_5", "", (_DIGITS3, _CJK, _DEEPSEEK + r"|[\r\n]|\s+(?!\S)|\s+", r"\p{N}"), None),
    ("bloom", "", (_BLOOM,), None),
    ("viking", "", (_BLOOM, r"\p{N}"), None),
    ("tiny_aya", "", (r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O), None),
    ("superbpe", "", (r"\p{N}+", r"(?=(\d{3})+(?!\d))"), None),
    ("kimi-k2", "", (r"[\p{Han}]+|" + _o200k(_DIGITS3, han=False, line_end=r"[\r\n]"),), None),
    (
        "bailingmoe",
        "",
        (
            rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
            r"|\s*[\r\n]|\s+(?!\S)|\s+",
        ),
        None,
    ),
    (
        "seed-coder",
        "",
        (rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}",),
        None,
    ),
    ("ufakzeka", "", (rf"[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",), None),
    ("laguna", "", (r"[^\n]+|[\n]+", _cl100k(r"\p{N}")), None),
    (
        "exaone-moe",
        "",
        (
            rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        ),
        None,
    ),
)
_SPELLINGS: Final = (  # ways to write the same
    (r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", _CONTRACTIONS),
    (r"'(?i:[sdmt]|ll|ve|re)", _CONTRACTIONS),
    (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", _CONTRACTIONS),
)


def find(tokenizer: dict[str, Any]) -> str:
    """The name of a tokenizer.json's pre-tokenizer; ConvertError with its description if none is known."""
    normalizer = "+".join(_normalizers(tokenizer.get("normalizer")))
    steps = tuple(_steps(tokenizer.get("pre_tokenizer")))
    whole = tokenizer["model"].get("ignore_merges") is True
    for name, known_normalizer, known_steps, known_whole in KNOWN:
        if (known_normalizer, *map(_spell, known_steps)) == (normalizer, *steps) and known_whole in (None, whole):
            return name
    described = ", ".join([*([normalizer] if normalizer else []), *steps]) or "nothing"
    raise ConvertError(
        f"its pre-tokenizer is none that GGUF has a name for ({described[:200]}); name the closest one with --pre "
        "(gpt-2, llama-bpe, qwen2, ...): text would then be cut a little differently"
    )


def _flat(entry: Any, inner: str) -> list[dict[str, Any]]:
    """The steps of a Sequence, or the one that there is."""
    if entry is None:
        return []
    if not isinstance(entry, dict):
        raise ConvertError("its normalizer or pre-tokenizer is no object")
    if entry.get("type") != "Sequence":
        return [entry]
    parts = entry.get(inner)
    if not isinstance(parts, list):
        raise ConvertError("its normalizer or pre-tokenizer is an empty sequence")
    return [step for part in parts for step in _flat(part, inner)]


def _normalizers(entry: Any) -> list[str]:
    return [str(step.get("type")) for step in _flat(entry, "normalizers")]


def _steps(entry: Any) -> list[str]:
    steps = []
    for step in _flat(entry, "pretokenizers"):
        kind = step.get("type")
        if kind == "ByteLevel":
            if step.get("use_regex") is not False:
                steps.append(GPT2)
        elif kind == "Digits":
            steps.append(DIGITS if step.get("individual_digits") else NUMBERS)
        elif kind == "Punctuation" and step.get("behavior") == "Contiguous":
            steps.append(PUNCTUATION)
        elif kind == "Split" and (step.get("behavior") == "Isolated" or step.get("invert")):
            pattern = step.get("pattern")
            steps.append(
                _spell(str(pattern.get("Regex", pattern.get("String")) if isinstance(pattern, dict) else pattern))
            )
        else:
            steps.append(f"{kind} {step.get('behavior', '')}".strip())
    return steps


def _spell(regex: str) -> str:
    """A regular expression in the spelling of KNOWN: no possessive quantifiers, escapes instead of line breaks."""
    regex = regex.replace("\r", r"\r").replace("\n", r"\n")
    if regex == _GPT2:
        return GPT2
    for other, ours in _SPELLINGS:
        regex = regex.replace(other, ours)
    return re.sub(r"(?<!\\)([+*?])\+", r"\1", regex)


def all_steps(tokenizer: dict[str, Any]) -> list[dict[str, Any]]:
    """The normalizers and pre-tokenizers of a tokenizer.json, in order."""
    return _flat(tokenizer.get("normalizer"), "normalizers") + _flat(tokenizer.get("pre_tokenizer"), "pretokenizers")


def types(tokenizer: dict[str, Any]) -> set[str]:
    """The types of all steps, and of the decoders."""
    steps = all_steps(tokenizer) + _flat(tokenizer.get("decoder"), "decoders")
    return {str(step.get("type")) for step in steps}
