"""Writes tests/data/quantize/imatrix.npz: importance matrices as llama.cpp's inputs of matmuls give them.

    python tests/make_imatrix_llamacpp.py tests/data/quantize/imatrix.npz ../shared

Needs a Python with numpy, gguf and llama-cpp-python (0.3.36 was used). llama-imatrix sums what the scheduler's
callback shows it, and so does this: for every product with a weight of a layer, the squares of its inputs, per channel
and, where a router chooses the matrix, per expert.
"""

from __future__ import annotations

import ctypes
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import random_models

#: goldens, and architectures of random_models
GOLDENS = ("qwen3", "gemma3", "phi3", "mixtral", "mamba2")
RANDOM = ("deepseek2", "granitemoe", "chatglm")
CHUNK, CHUNKS = 40, 2


class Tensor(ctypes.Structure):
    """The beginning of struct ggml_tensor."""

    _fields_ = (
        ("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4), ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int), ("op_params", ctypes.c_int32 * 16), ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10), ("view_src", ctypes.c_void_p), ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p), ("name", ctypes.c_char * 64),
    )  # fmt: skip


def array(t: Tensor, dtype: Any) -> Any:
    """The values of a tensor, [ne3][ne2][ne1][ne0]."""
    span = sum((n - 1) * b for n, b in zip(t.ne, t.nb, strict=True)) + np.dtype(dtype).itemsize
    raw = np.frombuffer((ctypes.c_char * span).from_address(t.data), np.uint8)
    return np.lib.stride_tricks.as_strided(raw[: raw.size // 4 * 4].view(dtype), tuple(t.ne)[::-1], tuple(t.nb)[::-1])


def ids(n_vocab: int) -> list[int]:
    return np.random.default_rng(11).integers(3, n_vocab, CHUNK * CHUNKS).tolist()


def collect(path: Path, tokens: list[int]) -> dict[str, Any]:
    """By weight: sums [matrices, cols], and counts [matrices], or [1] where no router chooses."""
    import llama_cpp

    ops = {}
    libs = Path(llama_cpp.__file__).parent / "lib"
    base = ctypes.CDLL(str(libs / "libggml-base.so"))
    base.ggml_op_name.restype = ctypes.c_char_p
    found: dict[str, Any] = {}

    def see(address: int, ask: bool, _: Any) -> bool:
        t = Tensor.from_address(address)
        kind = ops.setdefault(t.op, base.ggml_op_name(t.op).decode())
        if kind not in ("MUL_MAT", "MUL_MAT_ID"):
            return False
        weight, x = Tensor.from_address(t.src[0]), Tensor.from_address(t.src[1])
        name = weight.name.decode()
        if not name.startswith("blk.") or not name.endswith(".weight"):
            return False
        if ask:
            return True
        values, n = array(x, np.float32).astype(np.float64), weight.ne[2]
        n_counts = n if kind == "MUL_MAT_ID" else 1
        sums, counts = found.setdefault(name, (np.zeros((n, weight.ne[0])), np.zeros(n_counts, np.int64)))
        if kind == "MUL_MAT":
            for i in range(x.ne[2]):
                sums[i % n] += (values[0, i] ** 2).sum(0)
            counts += x.ne[1] * x.ne[2] // n
            return True
        chosen = array(Tensor.from_address(t.src[2]), np.int32)[0, 0]
        for token, experts in enumerate(chosen):
            for slot, expert in enumerate(experts):
                sums[expert] += values[0, token, slot % x.ne[1]] ** 2
                counts[expert] += 1
        return True

    callback = llama_cpp.ggml_backend_sched_eval_callback(see)
    model_params = llama_cpp.llama_model_default_params()
    model_params.use_extra_bufts = False  # else weights lie elsewhere, under other names
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = CHUNK
    params.type_k = params.type_v = 0
    params.flash_attn_type = 0  # it computes with half precision
    params.n_threads = params.n_threads_batch = 1
    params.cb_eval = callback
    context = llama_cpp.llama_init_from_model(model, params)
    for start in range(0, len(tokens), CHUNK):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        batch = llama_cpp.llama_batch_init(CHUNK, 0, 1)
        batch.n_tokens = CHUNK
        for i in range(CHUNK):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = tokens[start + i], i, 1, 1
            batch.seq_id[i][0] = 0
        assert llama_cpp.llama_decode(context, batch) == 0
        llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return found


def paths(folder: Path, shared: Path) -> dict[str, Path]:
    """The models, those of random_models written to the folder."""
    result = {name: shared / "goldens" / "models" / f"{name}.gguf" for name in GOLDENS}
    for arch in RANDOM:
        result[arch] = folder / f"{arch}.gguf"
        random_models.write(arch, result[arch])
    return result


def main() -> None:
    """Of each model: names of weights, and one after the other their sums and counts."""
    import gguf

    data: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in paths(Path(folder), Path(sys.argv[2])).items():
            n_vocab = len(gguf.GGUFReader(path).fields["tokenizer.ggml.tokens"].data)
            found = collect(path, ids(n_vocab))
            weights = sorted(found)
            data[f"{name}/names"] = np.array(weights)
            data[f"{name}/sums"] = np.concatenate([found[w][0].ravel() for w in weights]).astype(np.float32)
            data[f"{name}/counts"] = np.concatenate([found[w][1] for w in weights]).astype(np.int16)
    np.savez_compressed(sys.argv[1], **data)


if __name__ == "__main__":
    main()
