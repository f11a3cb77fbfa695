"""Write a GGUF file of a known shape with random weights, to measure speed.

    python -m bench.make_model 1b Q4_0 /tmp/1b-q4_0.gguf

Shapes: smollm2 (135M), 1b (Llama-3.2-1B), 3b, 8b. Types: any block type, or the mixture Q4_K_M as llama-quantize makes
it. Speed depends on values in one way: blocks of activations that stick out are computed more finely. So some of the
channels are larger than the others, and about as many blocks stick out as do in real models. Needs the `gguf` package
(in the test extra).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Shape:
    """Names as in GGUF."""

    n_vocab: int
    n_embd: int
    n_layer: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ff: int
    n_ctx: int
    rope_theta: float


SHAPES = {
    "smollm2": Shape(49152, 576, 30, 9, 3, 64, 1536, 8192, 1e5),
    "1b": Shape(128256, 2048, 16, 32, 8, 64, 8192, 131072, 5e5),
    "3b": Shape(128256, 3072, 28, 24, 8, 128, 8192, 131072, 5e5),
    "8b": Shape(128256, 4096, 32, 32, 8, 128, 14336, 131072, 5e5),
}


def tensors(shape: Shape, mix: str) -> dict[str, tuple[str, int, int]]:
    """Matrices: name -> (type, rows, cols). The embedding is tied to the head."""
    base, head, more = ("Q4_K", "Q6_K", "Q6_K") if mix == "Q4_K_M" else (mix, mix, mix)
    q, kv = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    result = {"token_embd.weight": (head, shape.n_vocab, shape.n_embd)}
    for i in range(shape.n_layer):
        # llama-quantize's use_more_bits: the first and last eighth of the layers, and every third between
        eighth = shape.n_layer // 8
        better = i < eighth or i >= 7 * shape.n_layer // 8 or (i - eighth) % 3 == 2
        result |= {
            f"blk.{i}.attn_q.weight": (base, q, shape.n_embd),
            f"blk.{i}.attn_k.weight": (base, kv, shape.n_embd),
            f"blk.{i}.attn_v.weight": (more if better else base, kv, shape.n_embd),
            f"blk.{i}.attn_output.weight": (base, shape.n_embd, q),
            f"blk.{i}.ffn_gate.weight": (base, shape.n_ff, shape.n_embd),
            f"blk.{i}.ffn_up.weight": (base, shape.n_ff, shape.n_embd),
            f"blk.{i}.ffn_down.weight": (more if better else base, shape.n_embd, shape.n_ff),
        }
    return result


#: byte offsets of the half-precision scales in a block
_HALVES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82), "Q3_K": (108,),
    "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "IQ4_XS": (0,),
}  # fmt: skip


#: general.file_type of files whose matrices are mostly of a type
_FILE_TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K": 12, "Q4_K": 14,
    "Q4_K_M": 15, "Q5_K": 16, "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30, "BF16": 32, "MXFP4": 38,
}  # fmt: skip


#: Channels come in groups as large as a block of activations; so many groups in a hundred are so many times larger.
GROUP, LARGE_PERCENT, LARGE = 32, 7, 4


def channel_factors(n: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """float32 [n]: 1, or LARGE in some of the groups."""
    large = rng.random(-(-n // GROUP)) < LARGE_PERCENT / 100
    return np.repeat(np.where(large, np.float32(LARGE), np.float32(1)), GROUP)[:n]


def blocks(
    kind: str, factor: npt.NDArray[np.float32], n_blocks: int, size: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Random codes under small scales, times `factor` [rows]: uint8 [rows, n_blocks, size]."""
    data = rng.integers(0, 256, (len(factor), n_blocks, size), dtype=np.uint8)
    scale = (factor * (1e-4 if kind.endswith("_K") else 2e-3)).astype("<f2")
    for at in _HALVES.get(kind, ()):
        data[:, :, at : at + 2] = scale.view(np.uint8).reshape(-1, 1, 2)
    if kind == "MXFP4":
        data[:, :, 0] = (118 + np.log2(factor)).astype(np.uint8)[:, None]  # e8m0: 2^-10 for values up to 12
    return data


def write(shape: Shape, mix: str, path: str) -> None:
    """The file at `path`."""
    import gguf

    rng = np.random.default_rng(1)
    w = gguf.GGUFWriter(path, "llama")
    w.add_name("synthetic")
    if mix in _FILE_TYPES:
        w.add_file_type(_FILE_TYPES[mix])
    w.add_vocab_size(shape.n_vocab)
    w.add_context_length(shape.n_ctx)
    w.add_embedding_length(shape.n_embd)
    w.add_block_count(shape.n_layer)
    w.add_feed_forward_length(shape.n_ff)
    w.add_head_count(shape.n_head)
    w.add_head_count_kv(shape.n_head_kv)
    w.add_key_length(shape.head_dim)
    w.add_value_length(shape.head_dim)
    w.add_rope_dimension_count(shape.head_dim)
    w.add_rope_freq_base(shape.rope_theta)
    w.add_layer_norm_rms_eps(1e-5)
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in visible] + [chr(256 + i) for i in range(256 - len(visible))]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list([*letters, "Ġt", *(f"<{i}>" for i in range(257, shape.n_vocab))])
    w.add_token_merges(["Ġ t"])
    kinds = [gguf.TokenType.NORMAL] * shape.n_vocab
    kinds[257] = kinds[258] = gguf.TokenType.CONTROL
    w.add_token_types(kinds)
    w.add_bos_token_id(257)
    w.add_eos_token_id(258)
    w.add_pad_token_id(258)
    w.add_add_bos_token(False)
    vectors = [("output_norm.weight", shape.n_embd)]
    for i in range(shape.n_layer):
        vectors += [(f"blk.{i}.attn_norm.weight", shape.n_embd), (f"blk.{i}.ffn_norm.weight", shape.n_embd)]
    for name, n in vectors:
        w.add_tensor(name, channel_factors(n, rng))
    for name, (kind, rows, cols) in tensors(shape, mix).items():
        quant = gguf.GGMLQuantizationType[kind]
        # the inputs of attn_output and ffn_down come from these
        spread = name.endswith(("attn_v.weight", "ffn_up.weight"))
        factor = channel_factors(rows, rng) if spread else np.ones(rows, np.float32)
        if kind in ("F32", "F16"):
            values = rng.standard_normal((rows, cols), np.float32) * (0.02 * factor[:, None])
            w.add_tensor(name, values.astype(np.float32 if kind == "F32" else np.float16))
            continue
        block, size = gguf.GGML_QUANT_SIZES[quant]
        if kind == "BF16":
            values = rng.standard_normal((rows, cols), np.float32) * (0.02 * factor[:, None])
            raw = (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        else:
            raw = blocks(kind, factor, cols // block, size, rng).reshape(rows, cols // block * size)
        w.add_tensor(name, raw, raw_dtype=quant)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("type", help="tensor type, e.g. Q4_0, Q8_0, Q4_K_M")
    parser.add_argument("path")
    args = parser.parse_args()
    write(SHAPES[args.shape], args.type, args.path)


if __name__ == "__main__":
    main()
