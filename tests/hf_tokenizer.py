"""Writes the tokenizer files of a Hugging Face model folder from a GGUF vocabulary, for tests of `pyllm convert`:
tokenizer.json for byte-level BPE, tokenizer.model (SentencePiece's protobuf) for the rest."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


#: tokenizer.ggml.pre -> (normalizer, pre-tokenizer, ignore_merges), as tokenizer.json files of such models have them
PRE: dict[str, tuple[Any, Any, bool]] = {
    "llama-bpe": (None, sequence(split(CL100K % "{1,3}"), BYTE_LEVEL | {"use_regex": False}), True),
    "qwen2": ({"type": "NFC"}, sequence(split(CL100K % ""), BYTE_LEVEL | {"use_regex": False}), False),
    "gpt-2": (None, BYTE_LEVEL, False),
    "olmo": ({"type": "NFC"}, BYTE_LEVEL, False),
    "smollm": (None, sequence({"type": "Digits", "individual_digits": True}, BYTE_LEVEL), False),
}


def write_tokenizer(folder: Path, metadata: dict[str, Any]) -> None:
    """metadata: the tokenizer.ggml.* keys of a GGUF file as Python values."""

    def get(name: str, default: Any = None) -> Any:
        return metadata.get(f"tokenizer.ggml.{name}", default)

    tokens, types = get("tokens"), [int(t) for t in get("token_type")]
    special = {
        name: tokens[get(key)]
        for name, key in (
            ("bos", "bos_token_id"), ("eos", "eos_token_id"), ("unk", "unknown_token_id"), ("pad", "padding_token_id")
        )
        if get(key) is not None
    }  # fmt: skip
    added = [
        {"id": i, "content": t, "special": types[i] != 4, "normalized": False, "lstrip": False, "rstrip": False,
         "single_word": False}
        for i, t in enumerate(tokens) if types[i] in (3, 4)
    ]  # fmt: skip
    config: dict[str, Any] = {f"{name}_token": text for name, text in special.items()}
    if get("model") == "gpt2":
        normalizer, pre, whole = PRE[get("pre")]
        post: Any = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
        if get("add_bos_token"):
            template = [{"SpecialToken": {"id": special["bos"], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
            ids = {special["bos"]: {"id": special["bos"], "ids": [get("bos_token_id")], "tokens": [special["bos"]]}}
            post = {"type": "TemplateProcessing", "single": template, "pair": template, "special_tokens": ids}
        inner = {i for i, t in enumerate(types) if t == 1}
        data = {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": normalizer,
            "pre_tokenizer": pre, "post_processor": post, "decoder": BYTE_LEVEL,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": whole,
                      "vocab": {tokens[i]: i for i in inner}, "merges": get("merges")},
        }  # fmt: skip
        (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    else:
        (folder / "tokenizer.model").write_bytes(sentencepiece_model(tokens, get("scores"), types, metadata))
        config |= {"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": {str(a.pop("id")): a for a in added}}
        config |= {f"add_{name}_token": bool(get(f"add_{name}_token")) for name in ("bos", "eos")}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")


def sentencepiece_model(tokens: list[str], scores: Any, types: list[int], metadata: dict[str, Any]) -> bytes:
    """A ModelProto of a BPE model, field by field."""

    def varint(n: int) -> bytes:
        out = b""
        while n > 0x7F:
            out, n = out + bytes([n & 0x7F | 0x80]), n >> 7
        return out + bytes([n])

    def blob(number: int, data: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(data)) + data

    def number(field: int, value: int) -> bytes:
        return varint(field << 3) + varint(value & (1 << 64) - 1)

    out = b""
    for text, score, kind in zip(tokens, scores, types, strict=True):
        text = text.replace(" ", "▁")  # which converters undo
        piece = blob(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score)
        out += blob(1, piece + (number(3, kind) if kind != 1 else b""))
    ids = {40: "unknown_token_id", 41: "bos_token_id", 42: "eos_token_id", 43: "padding_token_id"}
    trainer = number(3, 2) + number(35, 1)
    for field, key in ids.items():
        trainer += number(field, int(metadata.get(f"tokenizer.ggml.{key}", -1)))
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    return out + blob(2, trainer) + blob(3, number(3, int(prefix)) + number(4, 0))
