"""pyllm convert: the tokenizer files of model folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizer_published
import tokenizers
from hf_tokenizer import PRE, sentencepiece_model, write_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from pyllm.convert import pretokenizer
from pyllm.convert.folder import Config
from pyllm.convert.sentencepiece import SentencePieceModel
from pyllm.convert.tokenizer import tokenizer_metadata
from pyllm.errors import ConvertError
from pyllm.gguf import GGUFFile
from pyllm.tokenizer import Tokenizer, pre

TEXTS = [
    "Hello, world! It's 12345 degrees.\n\n  Indented\tcode = {x: 1}\r\n",
    "I'M SURE you've  seen   it, they'Ll 3.14 $%^&*() ``` ''' ''",
    "Größe naïve café Ångström ﬁ ½ e\u0301",
    "你好，世界！ 日本語のテキスト カタカナ Привет мир! العربية हिन्दी ไทย 한국어",
    "🚀 😶‍🌫️ 🦙🦙 def f(x):\n    return x**2  # comment\n\n\nclass A:\n\tpass",
    "   leading and trailing   ",
    "a" * 50 + " " * 30 + "b\x00c",
    "",
]


def config(**values: Any) -> Config:
    return Config({"architectures": ["X"], **values}, Path("config.json"))


def convert(folder: Path, n: int, **values: Any) -> dict[str, Any]:
    return {key: value for key, (value, _) in tokenizer_metadata(folder, config(**values), n).items()}


def metadata_of(path: Path) -> dict[str, Any]:
    with GGUFFile.open(path) as file:
        found = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in file.metadata.items()}
        return {k: v for k, v in found.items() if k.startswith("tokenizer.")}


@pytest.mark.parametrize(
    "name", ["bpe-gpt2", "bpe-llama3", "bpe-neox", "bpe-qwen2", "bpe-smollm", "spm-gemma", "spm-llama2"]
)
def test_vocabulary_comes_back(data: Path, tmp_path: Path, name: str) -> None:
    """Tokens, types, scores, merges and ids of a GGUF file, through the files of a model folder, and the same ids of
    texts as `tokenizers` and `sentencepiece` get from those files."""
    want = metadata_of(data / "tokenizers" / f"tiny-{name}.gguf")
    write_tokenizer(tmp_path, want)
    n = len(want["tokenizer.ggml.tokens"])
    got = convert(tmp_path, n)
    for key in ("model", "pre", "tokens", "token_type", "scores", "merges", "bos_token_id", "eos_token_id"):
        value, expected = (d.get(f"tokenizer.ggml.{key}") for d in (got, want))
        if key == "scores" and expected is not None:
            np.testing.assert_array_equal(value, np.array(expected, np.float32))
        else:
            assert (value.tolist() if isinstance(value, np.ndarray) else value) == expected, key
    tokenizer = Tokenizer(got)
    if (tmp_path / "tokenizer.json").exists():
        reference = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        wanted = [reference.encode(text, add_special_tokens=False).ids for text in TEXTS]
    else:
        wanted = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model")).encode(TEXTS)
    assert [list(tokenizer.encode(text, add_special=False, parse_special=False)) for text in TEXTS] == wanted


@pytest.mark.parametrize("name", ["spm-gemma", "spm-llama2"])
def test_scores_out_of_merges(data: Path, tmp_path: Path, name: str) -> None:
    """A folder that has only tokenizer.json of a SentencePiece vocabulary: the order of merges stands for scores."""
    want = metadata_of(data / "tokenizers" / f"tiny-{name}.gguf")
    tokens, types, scores = (want[f"tokenizer.ggml.{k}"] for k in ("tokens", "token_type", "scores"))
    vocab = {t: i for i, t in enumerate(tokens)}
    plain = {i for i, kind in enumerate(types) if kind == 1}
    merges = [
        (-scores[vocab[t]], vocab[t[:i]], vocab[t[i:]], (t[:i], t[i:]))
        for t in (tokens[i] for i in plain) for i in range(1, len(t))
        if vocab.get(t[:i], -1) in plain and vocab.get(t[i:], -1) in plain
    ]  # fmt: skip
    prefix = want.get("tokenizer.ggml.add_space_prefix", True)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    normalizers = [{"type": "Prepend", "prepend": "▁"}, replace] if prefix else [replace]
    added = [{"id": i, "content": t, "special": types[i] == 3, "normalized": False, "lstrip": False, "rstrip": False,
              "single_word": False} for i, t in enumerate(tokens) if types[i] in (2, 3, 4)]  # fmt: skip
    fast = {
        "version": "1.0", "added_tokens": added, "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None, "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "vocab": vocab,
                  "merges": [m[-1] for m in sorted(merges)]},
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(fast))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    reference = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    got = convert(tmp_path, len(tokens))
    assert got["tokenizer.ggml.model"] == "llama" and got["tokenizer.ggml.add_space_prefix"] is prefix
    assert got["tokenizer.ggml.token_type"].tolist() == [
        2 if t == "<unk>" else k for t, k in zip(tokens, types, strict=True)
    ]
    tokenizer = Tokenizer(got)
    for text in TEXTS[:-1]:
        ids = list(tokenizer.encode(text, add_special=False, parse_special=False))
        assert ids == reference.encode(text, add_special_tokens=False).ids


# -- pre-tokenizers -----------------------------------------------------------------------------------------

#: rows that are told apart by more than their expressions, or that folders do not have as tokenizer.json
ALIKE = {"dbrx": "llama-bpe", "glm4": "llama-bpe", "starcoder": "smollm", "refact": "smollm", "mpt": "olmo"}
NOT_FOUND = {"chameleon", "jais-2", "youtu", "afmoe"}


@pytest.mark.parametrize("name", sorted(tokenizer_published.STAGES))
def test_pre_tokenizers_are_recognized(name: str) -> None:
    """By what `tokenizers` writes of their published form."""
    row = pre.PRE_TOKENIZERS[name]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*tokenizer_published.published(name), byte_level])
    entry = json.loads(tokenizer.to_str())
    entry["model"]["ignore_merges"] = row.whole_words
    entry["normalizer"] = {"type": row.normalize} if row.normalize else None
    if name in NOT_FOUND:
        with pytest.raises(ConvertError, match="none that GGUF has a name for"):
            pretokenizer.find(entry)
        return
    found = pretokenizer.find(entry)
    assert found == name or pre.find(found) == row or ALIKE[name] == found


def test_unknown_pre_tokenizer(data: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, metadata_of(data / "tokenizers" / "tiny-bpe-gpt2.gguf"))
    path = tmp_path / "tokenizer.json"
    fast = json.loads(path.read_text())
    fast["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [PRE["gpt-2"][1], {"type": "UnicodeScripts"}]}
    path.write_text(json.dumps(fast))
    with pytest.raises(ConvertError, match=r"gpt2, UnicodeScripts.*--pre"):
        convert(tmp_path, 448)
    named = tokenizer_metadata(tmp_path, config(), 448, pre="gpt-2")
    assert named["tokenizer.ggml.pre"] == ("gpt-2", None)


# -- special tokens and templates ---------------------------------------------------------------------------


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    """A folder with the Llama 3 vocabulary of 512 tokens."""
    write_tokenizer(tmp_path, metadata_of(data / "tokenizers" / "tiny-bpe-llama3.gguf"))
    return tmp_path


def edit(folder: Path, file: str, **values: Any) -> None:
    path = folder / file
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**old, **values}))


def test_special_tokens(folder: Path) -> None:
    tokens = convert(folder, 512)["tokenizer.ggml.tokens"]
    edit(folder, "tokenizer_config.json", eos_token={"content": tokens[505]}, bos_token=None)
    edit(folder, "generation_config.json", eos_token_id=[505, 506], pad_token_id=507)
    got = convert(folder, 512, bos_token_id=504)
    assert got["tokenizer.ggml.eos_token_id"] == 505 and got["tokenizer.ggml.eot_token_id"] == 506
    assert got["tokenizer.ggml.padding_token_id"] == 507
    assert got["tokenizer.ggml.add_bos_token"] is True  # tokenizer.json puts one


def test_flags_of_older_tokenizers(folder: Path) -> None:
    edit(folder, "tokenizer_config.json", tokenizer_class="LlamaTokenizerFast", add_bos_token=False, add_eos_token=True)
    got = convert(folder, 512)
    assert got["tokenizer.ggml.add_bos_token"] is False and got["tokenizer.ggml.add_eos_token"] is True


def test_rows_without_tokens_and_tokens_without_rows(folder: Path) -> None:
    got = convert(folder, 520)
    assert got["tokenizer.ggml.tokens"][512:] == [f"[PAD{i}]" for i in range(512, 520)]
    assert got["tokenizer.ggml.token_type"][512:].tolist() == [5] * 8
    assert len(convert(folder, 500)["tokenizer.ggml.tokens"]) == 500
    assert "tokenizer.ggml.bos_token_id" not in convert(folder, 500)


def test_added_tokens(folder: Path) -> None:
    added = {
        "512": {"content": "<|look_special|>", "special": False},
        "513": {"content": "▁▁word", "special": False},
        "514": {"content": "odd", "special": True},
    }
    edit(folder, "tokenizer_config.json", added_tokens_decoder=added)
    got = convert(folder, 515)
    assert got["tokenizer.ggml.tokens"][512:] == ["<|look_special|>", "  word", "odd"]
    assert got["tokenizer.ggml.token_type"][512:].tolist() == [3, 4, 3]


def test_chat_templates(folder: Path) -> None:
    assert "tokenizer.chat_template" not in convert(folder, 512)
    templates = [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]
    edit(folder, "tokenizer_config.json", chat_template=templates)
    got = convert(folder, 512)
    assert got["tokenizer.chat_template"] == "A" and got["tokenizer.chat_template.tool_use"] == "B"
    assert got["tokenizer.chat_templates"] == ["tool_use"]
    (folder / "chat_template.jinja").write_text("{{ 'ü' }}", encoding="utf-8")
    assert convert(folder, 512)["tokenizer.chat_template"] == "{{ 'ü' }}"


# -- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"type": "Words", "vocab": {}}}, "Words"),
        ({"model": {"type": "BPE", "vocab": []}}, "laid out"),
        ({"model": {"type": "BPE", "vocab": {"a": "b"}, "merges": []}}, "no token id"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["abc"]}}, "laid out|pair"),
        ({"model": 7}, "laid out"),
        ({"added_tokens": [{"content": 5, "id": 3}]}, "no text"),
        ({"added_tokens": [{"content": "a", "id": -3}]}, "no token id"),
        ({"pre_tokenizer": [1]}, "no object"),
    ],
)
def test_hostile_tokenizer_json(folder: Path, values: dict[str, Any], message: str) -> None:
    edit(folder, "tokenizer.json", **values)
    with pytest.raises(ConvertError, match=message):
        convert(folder, 512)


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        convert(tmp_path, 512)
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    with pytest.raises(ConvertError, match="no SentencePiece model"):
        convert(tmp_path, 512)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_changed_sentencepiece_models_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    good = bytearray(sentencepiece_model(["<unk>", "▁a", "b"], [0.0, -1.0, -2.0], [2, 1, 1], {}))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "tokenizer.model"
    path.write_bytes(good[: data.draw(st.integers(0, len(good)))] if data.draw(st.booleans()) else good)
    try:
        model = SentencePieceModel.read(path)
    except ConvertError:
        return
    assert all(isinstance(text, str) and 1 <= kind <= 6 for text, _, kind in model.pieces)
