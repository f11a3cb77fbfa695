"""Models without values, to see which types quantization chooses: headers, and files that are holes after them.

What llama.cpp chooses is in tests/data/quantize/types.json, written by running this file with a Python that has
llama-cpp-python (0.3.36 was used):

    python tests/quantize_models.py tests/data/quantize/types.json

A model's tensors are in the order of llama-quantize's files; types of equal neighbours are counted: "Q4_K*3 Q6_K".
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf_bytes
from gguf_bytes import F32, U32, Tensor, array, scalar

D, FF, VOCAB = 256, 512, 32
#: the mixes, and their numbers in llama.h
MIXES = {
    "F32": 0, "F16": 1, "BF16": 32, "Q4_0": 2, "Q4_1": 3, "Q5_0": 8, "Q5_1": 9, "Q8_0": 7, "Q2_K": 10, "Q2_K_S": 21,
    "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18,
    "IQ4_NL": 25, "IQ4_XS": 30, "MXFP4_MOE": 38, "TQ1_0": 36, "TQ2_0": 37,
}  # fmt: skip
#: types of tensors, by their numbers in ggml.h
TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q3_K": 11, "Q4_K": 12, "Q6_K": 14}


@dataclass
class Spec:
    """A model: matrices of a layer as {name: shape}, shapes in GGUF's order."""

    arch: str = "llama"
    layers: int = 9
    heads: int = 4
    kv: int = 4
    tied: bool = False
    d: int = D
    matrices: dict[str, tuple[int, ...]] = field(default_factory=dict)
    more: dict[str, tuple[int, ...]] = field(default_factory=dict)  # outside the layers
    keys: dict[str, Any] = field(default_factory=dict)
    type: int = 1  # of matrices: F16


def attention(d: int = D, kv: int = 1) -> dict[str, tuple[int, ...]]:
    """kv: heads of queries per head of keys."""
    return {
        "attn_norm.weight": (d,), "attn_q.weight": (d, d), "attn_k.weight": (d, d // kv), "attn_v.weight": (d, d // kv),
        "attn_output.weight": (d, d), "ffn_norm.weight": (d,), "attn_v.bias": (d // kv,),
    }  # fmt: skip


def glu(d: int = D, ff: int = FF) -> dict[str, tuple[int, ...]]:
    return {"ffn_gate.weight": (d, ff), "ffn_up.weight": (d, ff), "ffn_down.weight": (ff, d)}


def experts(n: int) -> dict[str, tuple[int, ...]]:
    return {
        "ffn_gate_inp.weight": (D, n), "ffn_gate_exps.weight": (D, FF, n), "ffn_up_exps.weight": (D, FF, n),
        "ffn_down_exps.weight": (FF, D, n), "ffn_gate_shexp.weight": (D, FF), "ffn_down_shexp.weight": (FF, D),
    }  # fmt: skip


FUSED = {"attn_norm.weight": (D,), "attn_qkv.weight": (D, 3 * D), "attn_output.weight": (D, D)}
MODELS = {
    "llama": Spec(layers=17, matrices=attention() | glu()),
    "llama_gqa": Spec(layers=8, kv=1, tied=True, matrices=attention(kv=4) | glu()),
    "llama_80": Spec(layers=80, kv=2, matrices=attention(kv=2) | glu()),
    "llama_80_mha": Spec(layers=80, matrices={"attn_v.weight": (D, D)}),
    "mixtral": Spec(layers=12, kv=2, matrices=attention(kv=2) | experts(8), keys={
        "expert_count": 8, "expert_used_count": 2}),
    "qwen3moe": Spec("qwen3moe", 10, kv=1, matrices=attention(kv=4) | experts(4), keys={
        "expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": FF}),
    "falcon": Spec("falcon", 17, kv=1, matrices=FUSED | {"ffn_up.weight": (D, FF), "ffn_down.weight": (FF, D)}),
    "phi3": Spec("phi3", 11, matrices=FUSED | {"ffn_up.weight": (D, 2 * FF), "ffn_down.weight": (FF, D)}),
    "gpt2": Spec("gpt2", matrices=FUSED | {"ffn_up.weight": (D, FF), "ffn_down.weight": (FF, D)},
                 more={"position_embd.weight": (D, 64)}),
    # rows that are no multiple of 256, and in part not of 32
    "narrow": Spec(layers=9, d=96, matrices=attention(96) | glu(96, 200), tied=True),
    "narrow_untied": Spec(layers=4, d=96, matrices=attention(96) | glu(96, 256)),
    "gemma3n": Spec("gemma3n", 10, kv=2, tied=True, matrices=attention(kv=2) | glu() | {
        "altup_router.weight": (D, 4), "laurel_l.weight": (D, 64), "inp_gate.weight": (D, 256),
        "proj.weight": (256, D)},
        more={"per_layer_token_embd.weight": (2560, VOCAB), "per_layer_model_proj.weight": (D, 2560),
              "altup_proj.weight": (D, D, 3)},
        keys={"altup.num_inputs": 4, "altup.active_idx": 0, "embedding_length_per_layer_input": 256}),
    "mamba2": Spec("mamba2", 6, heads=0, kv=0, matrices={
        "attn_norm.weight": (D,), "ssm_in.weight": (D, 1096), "ssm_conv1d.weight": (4, 576), "ssm_conv1d.bias": (576,),
        "ssm_a": (1, 8), "ssm_d": (1, 8), "ssm_norm.weight": (512, 1), "ssm_out.weight": (512, D)},
        keys={"ssm.conv_kernel": 4, "ssm.inner_size": 512, "ssm.state_size": 32, "ssm.time_step_rank": 8,
              "ssm.group_count": 1}),
    "requantized": Spec(layers=9, matrices=attention() | glu(), type=8),
}  # fmt: skip

#: ways to quantize beyond the mixes themselves: model, mix, options
EXTRA: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama imatrix Q4_0": ("llama", "Q4_0", {"imatrix": True}),
    "llama imatrix Q5_0": ("llama", "Q5_0", {"imatrix": True}),
    "llama imatrix IQ4_XS": ("llama", "IQ4_XS", {"imatrix": True}),
    "llama imatrix IQ4_NL": ("llama", "IQ4_NL", {"imatrix": True}),
    "llama pure": ("llama", "Q4_K_M", {"pure": True}),
    "narrow pure": ("narrow", "Q5_K_M", {"pure": True}),
    "llama leave": ("llama", "Q4_K_M", {"leave_output": True}),
    "llama output": ("llama", "Q4_K_M", {"output_type": "Q8_0"}),
    "tied output": ("llama_gqa", "Q4_K_M", {"output_type": "Q8_0"}),
    "llama embedding": ("llama", "Q4_K_M", {"embedding_type": "Q8_0"}),
    "tied both": ("llama_gqa", "Q4_K_M", {"embedding_type": "Q4_0", "output_type": "Q8_0"}),
    "float output": ("llama", "F16", {"output_type": "Q8_0", "embedding_type": "Q4_0"}),
    "named": ("llama", "Q4_K_M", {"tensor_types": [(r"blk\.[0-7]\.ffn_down", "Q8_0"), ("attn_v", "Q5_1")]}),
    "named twice": ("llama", "Q4_K_M", {"tensor_types": [(r"blk\.1\.", "Q8_0"), (r"ffn", "Q3_K"), ("output", "F16")]}),
    "named pure": ("llama", "Q4_K_M", {"pure": True, "tensor_types": [("attn_q", "Q6_K")]}),
    "named float": ("llama", "F16", {"tensor_types": [("attn_q", "Q6_K")]}),
    "named kept": ("mixtral", "Q4_K_M", {"tensor_types": [("ffn_gate_inp", "Q8_0"), ("norm", "Q8_0")]}),
    "named narrow": ("narrow", "Q4_0", {"tensor_types": [("attn_q", "Q6_K"), ("ffn_down", "Q4_K")]}),
    "per layer": ("gemma3n", "Q4_K_M", {"embedding_type": "Q8_0"}),
    "per layer named": ("gemma3n", "Q4_K_M", {"embedding_type": "Q8_0", "tensor_types": [("per_layer", "Q4_0")]}),
}


def cases() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """By name: model, mix and options."""
    large = ("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M")  # the mixes that treat 70B models otherwise, and one not
    mixes = {
        f"{name} {mix}": (name, mix, {})
        for name, spec in MODELS.items()
        for mix in (large if spec.layers == 80 else MIXES)
    }
    return mixes | EXTRA


def tensors(spec: Spec) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (spec.d, VOCAB), "output_norm.weight": (spec.d,)}
    if not spec.tied:
        found["output.weight"] = (spec.d, VOCAB)
    found |= spec.more
    for i in range(spec.layers):
        found |= {f"blk.{i}.{name}": shape for name, shape in spec.matrices.items()}
    return found


def write(spec: Spec, path: Path) -> None:
    """The model; all values are zero."""
    arch = spec.arch
    keys: dict[str, Any] = {
        "context_length": 128, "embedding_length": spec.d, "block_count": spec.layers, "feed_forward_length": FF,
        "attention.head_count": spec.heads, "attention.head_count_kv": spec.kv, "vocab_size": VOCAB,
    } | spec.keys  # fmt: skip
    pairs = [("general.architecture", scalar(gguf_bytes.STRING, arch))]
    pairs += [(f"{arch}.{key}", scalar(U32, value)) for key, value in keys.items()]
    pairs += [
        (f"{arch}.attention.{name}", scalar(F32, 1e-5)) for name in ("layer_norm_rms_epsilon", "layer_norm_epsilon")
    ]
    pairs += [("tokenizer.ggml.model", scalar(gguf_bytes.STRING, "none"))]
    if arch in ("gemma3n",):
        pairs += [(f"{arch}.attention.sliding_window", scalar(U32, 64))]
        pairs += [(f"{arch}.attention.sliding_window_pattern", array(gguf_bytes.BOOL, [1] * spec.layers))]
        pairs += [(f"{arch}.attention.shared_kv_layers", scalar(U32, 0))]
    offset, infos = 0, []
    for name, shape in tensors(spec).items():
        matrix = len(shape) > 1 and not name.endswith(("norm.weight", "ssm_a", "ssm_d"))
        kind = spec.type if matrix else 0
        infos.append(Tensor(name, shape, type=kind, offset=offset))
        n = 1
        for size in shape:
            n *= size
        offset += -(-(n * 2 if kind == 1 else n // 32 * 34 if kind == 8 else n * 4) // 32) * 32
    header = gguf_bytes.file(pairs, infos)
    path.write_bytes(header)
    os.truncate(path, len(header) + offset)


def counted(types: list[str]) -> str:
    """ "A A B" as "A*2 B"."""
    runs = [(kind, len(list(group))) for kind, group in itertools.groupby(types)]
    return " ".join(kind if n == 1 else f"{kind}*{n}" for kind, n in runs)


# ---- what llama.cpp chooses -------------------------------------------------------------------------------------


class _Override(ctypes.Structure):
    _fields_ = (("pattern", ctypes.c_char_p), ("type", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("data", ctypes.POINTER(ctypes.c_float)), ("size", ctypes.c_size_t))


def llamacpp(path: Path, mix: str, options: dict[str, Any]) -> str:
    """The types in the log of a dry run of llama_model_quantize."""
    import llama_cpp

    lines: list[str] = []
    callback = llama_cpp.llama_log_callback(lambda level, text, data: lines.append(text.decode()))
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread, params.ftype, params.dry_run, params.allow_requantize = 1, MIXES[mix], True, True
    params.pure = options.get("pure", False)
    params.quantize_output_tensor = not options.get("leave_output", False)
    if "output_type" in options:
        params.output_tensor_type = TYPES[options["output_type"]]
    if "embedding_type" in options:
        params.token_embedding_type = TYPES[options["embedding_type"]]
    named = [(pattern.encode(), TYPES[kind]) for pattern, kind in options.get("tensor_types", ())]
    overrides = (_Override * (len(named) + 1))(*named, (None, 0))
    if named:
        params.tt_overrides = ctypes.cast(overrides, type(params.tt_overrides))
    one = (ctypes.c_float * 1)(1.0)
    data = (_Data * 2)((b"no such tensor", one, 1), (None, None, 0))
    if options.get("imatrix"):
        params.imatrix = ctypes.cast(data, type(params.imatrix))
    status = llama_cpp.llama_model_quantize(str(path).encode(), b"", ctypes.byref(params))
    log = "".join(lines)
    assert status == 0, log
    types = []
    for line in re.findall(r"^\[ *\d+/ *\d+\] .*", log, re.MULTILINE):
        new = re.search(r"-> .* MiB \((\w+)\)", line)
        old = re.search(r"type = +(\w+),", line)
        assert old is not None, line
        types.append((new or old)[1].upper())
    return counted(types)


def main() -> None:
    expected = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, spec in MODELS.items():
            write(spec, Path(folder) / name)
        for case, (model, mix, options) in cases().items():
            expected[case] = llamacpp(Path(folder) / model, mix, options)
    Path(sys.argv[1]).write_text(json.dumps(expected, indent=0) + "\n")


if __name__ == "__main__":
    main()
