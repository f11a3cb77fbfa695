"""A Hugging Face model folder out of a golden GGUF file: what `pyllm convert` must turn back into that file.

Names and shapes of the tensors are those of transformers (tests/data/hf_names.json, by make_hf_models.py), the GGUF
name of each is that of the gguf package's tensor name map, the configuration that of the golden. What llama.cpp's
converter did to the values is undone here.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from hf_tokenizer import write_tokenizer

NAMES = Path(__file__).parent / "data" / "hf_names.json"
PERMUTED = {"llama", "smollm3", "granite"}
DTYPES = {"float32": "F32", "float16": "F16", "uint16": "BF16", "uint8": "U8", "int32": "I32"}


def safetensors(tensors: dict[str, np.ndarray], header: dict[str, Any] | None = None) -> bytes:
    """The bytes of a file; uint16 arrays stand for BF16."""
    entries, at = {}, 0
    for name, array in tensors.items():
        dtype, end = DTYPES[str(array.dtype)], at + array.nbytes
        entries[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, end]}
        at = end
    raw = json.dumps(entries if header is None else header).encode()
    return struct.pack("<Q", len(raw)) + raw + b"".join(np.ascontiguousarray(a).tobytes() for a in tensors.values())


def hf_folder(folder: Path, golden: Path, shards: int = 1) -> dict[str, Any]:
    """Fill `folder` from golden.gguf and golden.npz (a path without suffix); returns the configuration."""
    reader = gguf.GGUFReader(golden.with_suffix(".gguf"))
    with np.load(golden.with_suffix(".npz")) as npz:
        config = json.loads(bytes(npz["meta_json"]))["config"]
    metadata = {key: f.contents() for key, f in reader.fields.items()}
    tensors = hf_tensors(json.loads(NAMES.read_text())[golden.name], metadata, config, reader)
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder, metadata)
    names = list(tensors)
    if shards == 1:
        (folder / "model.safetensors").write_bytes(safetensors(tensors))
        return config
    where = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in names[i::shards]}
        where |= dict.fromkeys(part, file)
        (folder / file).write_bytes(safetensors(part))
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return config


def hf_tensors(
    names: dict[str, Any], metadata: dict[str, Any], config: dict[str, Any], reader: gguf.GGUFReader
) -> dict[str, np.ndarray]:
    arch = metadata["general.architecture"]
    data = {t.name: np.array(t.data).reshape(t.shape[::-1]) for t in reader.tensors}
    n_layer = config.get("num_hidden_layers") or config["n_layer"]
    kind = next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == arch)
    table = gguf.get_tensor_name_map(kind, n_layer)
    out = {}
    for pattern, (shape, layers) in names.items():
        for layer in layers:
            n = pattern.count("{}")
            first = [] if layer < 0 else [layer]
            if n == 2 or (n == 1 and "altup_" in pattern):  # stacked in the file
                stack = data[gguf_name(table, re.sub(r"\{\}\.(?!.*\{\})", "", pattern).format(*first[: n - 1]))]
                for i, part in enumerate(stack) if n == 2 else [(layer, stack[layer])]:
                    out[pattern.format(*first[: n - 1], i)] = part
                continue
            name = pattern.format(*first)
            value = original(arch, name, data, table, config)
            assert list(value.shape) == shape, (name, value.shape, shape)
            out[name] = value
    return out


def gguf_name(table: gguf.TensorNameMap, name: str) -> str:
    """The GGUF name of a tensor of transformers."""
    name = name.replace(".dt_bias", ".dt_proj.bias")  # what llama.cpp's converter renames itself
    name = re.sub(r"(correct_output_scale|sinks)$", r"\1.weight", name)
    found = table.get_name(name, try_suffixes=(".weight", ".bias"))
    assert found, name
    return found


def original(
    arch: str, name: str, data: dict[str, np.ndarray], table: gguf.TensorNameMap, config: dict[str, Any]
) -> np.ndarray:
    """The tensor as transformers has it."""
    heads = config.get("num_attention_heads") or config.get("n_head")
    if ".experts.gate_up_proj" in name:  # gpt-oss: columns alternate
        end = "bias" if name.endswith("_bias") else "weight"
        base = f"blk.{name.split('.')[2]}.ffn_"
        gate, up = (data[f"{base}{k}_exps.{end}"] for k in ("gate", "up"))
        both = np.stack([gate, up], axis=2).reshape(gate.shape[0], -1, *gate.shape[2:])
        return both if end == "bias" else both.swapaxes(1, 2)
    if ".experts.down_proj" in name:
        end = "bias" if name.endswith("_bias") else "weight"
        value = data[f"blk.{name.split('.')[2]}.ffn_down_exps.{end}"]
        return value if end == "bias" else value.swapaxes(1, 2)
    if "kv_b_proj" in name:  # deepseek2
        base = f"blk.{name.split('.')[2]}.attn_"
        both = np.concatenate([data[f"{base}k_b.weight"].swapaxes(1, 2), data[f"{base}v_b.weight"]], axis=1)
        return both.reshape(-1, both.shape[-1])
    key = gguf_name(table, name)
    value = data[key if key in data else key.removesuffix(".weight")]
    stem = key.split(".")[-2]
    if arch in PERMUTED and stem in ("attn_q", "attn_k"):
        n = heads if stem == "attn_q" else config["num_key_value_heads"]
        return value.reshape(n, -1, 2, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)
    if arch in ("gemma", "gemma2", "gemma3") and stem.endswith("norm"):
        return minus_one(value)
    if arch == "gpt2" and value.ndim == 2 and stem in ("attn_qkv", "attn_output", "ffn_up", "ffn_down"):
        return value.T
    if arch == "gptneox" and stem == "attn_qkv":
        return value.reshape(3, heads, -1, *value.shape[1:]).swapaxes(0, 1).reshape(value.shape)
    if name.endswith("A_log"):
        return log_of(-value[:, 0])
    if stem in ("ssm_conv1d", "conv") and value.ndim == 2:
        return value[:, None]
    if stem == "ssm_norm" or name.endswith(".D"):
        return value.reshape(-1)
    return value


def minus_one(value: np.ndarray) -> np.ndarray:
    """x with x + 1 == value in float32."""
    x = value - np.float32(1)
    assert (x + np.float32(1) == value).all()
    return x


def log_of(value: np.ndarray) -> np.ndarray:
    """x with exp(x) == value in float32, or nearly so."""
    return np.log(value.astype(np.float64)).astype(np.float32)
