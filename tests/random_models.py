"""Small models with random weights, of architectures for which there is no golden of transformers.

Their logits by llama.cpp are in tests/data/llamacpp_logits.npz, written by running this file with a Python that has
numpy, gguf and llama-cpp-python (0.3.36 was used):

    python tests/random_models.py tests/data/llamacpp_logits.npz

Norms, biases and gains are random too, so that whatever is left out or put elsewhere moves the logits by much.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np

N_VOCAB, D, LAYERS, HEADS, KV, HEAD, FF, CTX = 259, 64, 5, 4, 2, 16, 96, 128
ATTENTION = {
    "attn_q": (HEADS * HEAD, D),
    "attn_k": (KV * HEAD, D),
    "attn_v": (KV * HEAD, D),
    "attn_output": (D, HEADS * HEAD),
}
FUSED = {"attn_qkv": ((HEADS + 2 * KV) * HEAD, D), "attn_output": (D, HEADS * HEAD)}
GLU = {"ffn_gate": (FF, D), "ffn_up": (FF, D), "ffn_down": (D, FF)}
GATE_UP = {"ffn_up": (2 * FF, D), "ffn_down": (D, FF)}
N_EXPERT, N_USED = 6, 2
EXPERTS = {
    "ffn_gate_inp": (N_EXPERT, D),
    "ffn_gate_exps": (N_EXPERT, FF, D),
    "ffn_up_exps": (N_EXPERT, FF, D),
    "ffn_down_exps": (N_EXPERT, D, FF),
}
EXPERT_KEYS = {"expert_count": N_EXPERT, "expert_used_count": N_USED, "expert_feed_forward_length": FF}
LATENT, ROT, PLAIN, VALUE, LOW = 32, 16, 24, 32, 24
MLA = {
    "attn_q_a": (LOW, D),
    "attn_q_b": (HEADS * (PLAIN + ROT), LOW),
    "attn_kv_a_mqa": (LATENT + ROT, D),
    "attn_k_b": (HEADS, LATENT, PLAIN),
    "attn_v_b": (HEADS, VALUE, LATENT),
    "attn_output": (D, HEADS * VALUE),
}
MLA_KEYS = {
    "attention.key_length": LATENT + ROT, "attention.value_length": LATENT, "attention.q_lora_rank": LOW,
    "attention.kv_lora_rank": LATENT, "attention.key_length_mla": PLAIN + ROT, "attention.value_length_mla": VALUE,
}  # fmt: skip
SHARED_EXPERT = {"ffn_gate_shexp": (FF, D), "ffn_up_shexp": (FF, D), "ffn_down_shexp": (D, FF)}
YARN = {
    "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32,
    "rope.scaling.yarn_log_multiplier": 0.0707,
}  # fmt: skip
MLP = {"ffn_up": (FF, D), "ffn_down": (D, FF)}
PRE = ["attn_norm", "ffn_norm"]
SANDWICH = [*PRE, "post_attention_norm", "post_ffw_norm"]
QKV_BIAS = ["attn_q", "attn_k", "attn_v"]

#: architecture -> matrices, norms, biases, and keys that are not the same for all
MODELS: dict[str, dict[str, Any]] = {
    "chatglm": {"matrices": FUSED | GATE_UP, "biases": ["attn_qkv"], "keys": {"rope.dimension_count": 8}},
    "command-r": {"matrices": ATTENTION | GLU, "norms": ["attn_norm"], "layer_norm": True, "tied": True,
                  "keys": {"logit_scale": 4.0}},
    "deepseek2": {"matrices": MLA | EXPERTS | SHARED_EXPERT, "n_kv": 1,
                  "vectors": {"attn_q_a_norm": LOW, "attn_kv_a_norm": LATENT},
                  "keys": MLA_KEYS | EXPERT_KEYS | YARN | {
                      "rope.dimension_count": ROT, "leading_dense_block_count": 0, "expert_shared_count": 1,
                      "expert_gating_func": 1, "expert_weights_scale": 1.5}},
    "ernie4_5": {"matrices": ATTENTION | GLU},
    "exaone": {"matrices": ATTENTION | GLU},
    "glm4": {"matrices": ATTENTION | GATE_UP, "norms": SANDWICH, "biases": QKV_BIAS,
             "keys": {"rope.dimension_count": 8}},
    "granitemoe": {"matrices": ATTENTION | EXPERTS,
                   "keys": {"embedding_scale": 6.0, "residual_scale": 0.5, "logit_scale": 0.25, "attention.scale": 0.2,
                            **EXPERT_KEYS}},
    "internlm2": {"matrices": ATTENTION | GLU},
    "minicpm": {"matrices": ATTENTION | GLU,
                "keys": {"embedding_scale": 6.0, "residual_scale": 0.5, "logit_scale": 0.25}},
    "olmoe": {"matrices": dict.fromkeys(ATTENTION, (D, D)) | EXPERTS, "keys": EXPERT_KEYS, "n_kv": HEADS,
              "vectors": {"attn_q_norm": D, "attn_k_norm": D}},
    "starcoder2": {"matrices": ATTENTION | MLP, "biases": [*ATTENTION, *MLP], "layer_norm": True, "norm_biases": True},
}  # fmt: skip


def write(arch: str, path: Path) -> None:
    """The model of an architecture, always the same, with a vocabulary of bytes."""
    spec = MODELS[arch]
    keys = spec.get("keys", {})
    w = gguf.GGUFWriter(str(path), arch)
    w.add_context_length(CTX)
    w.add_embedding_length(D)
    w.add_block_count(LAYERS)
    w.add_feed_forward_length(FF)
    w.add_head_count(HEADS)
    w.add_head_count_kv(spec.get("n_kv", KV))
    w.add_rope_dimension_count(keys.get("rope.dimension_count", HEAD))
    w.add_rope_freq_base(10000.0)
    (w.add_layer_norm_eps if spec.get("layer_norm") else w.add_layer_norm_rms_eps)(1e-5)
    for key, value in keys.items():
        if isinstance(value, float):
            w.add_float32(f"{arch}.{key}", value)
        elif isinstance(value, str):
            w.add_string(f"{arch}.{key}", value)
        elif key != "rope.dimension_count":
            w.add_uint32(f"{arch}.{key}", value)
    w.add_tokenizer_model("llama")
    w.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))])
    w.add_token_scores([0.0] * N_VOCAB)
    w.add_token_types([2, 3, 3] + [6] * 256)
    rng = np.random.default_rng(sum(arch.encode()))

    def matrix(name: str, *shape: int) -> None:
        gain = 1.6 if "attn_q" in name or "attn_k" in name else 1.0
        w.add_tensor(name + ".weight", (rng.standard_normal(shape) * gain / shape[-1] ** 0.5).astype(np.float32))

    def norm(name: str, n: int = D) -> None:
        w.add_tensor(name + ".weight", (1 + 0.2 * rng.standard_normal(n)).astype(np.float32))
        if spec.get("norm_biases"):
            bias(name, n)

    def bias(name: str, n: int) -> None:
        w.add_tensor(name + ".bias", (0.25 * rng.standard_normal(n)).astype(np.float32))

    matrix("token_embd", N_VOCAB, D)
    norm("output_norm")
    if not spec.get("tied"):
        matrix("output", N_VOCAB, D)
    for layer in range(LAYERS):
        for name in spec.get("norms", PRE):
            norm(f"blk.{layer}.{name}")
        for name, shape in spec["matrices"].items():
            matrix(f"blk.{layer}.{name}", *shape)
            if name in spec.get("biases", []):
                bias(f"blk.{layer}.{name}", shape[0])
        for name, n in spec.get("vectors", {}).items():
            norm(f"blk.{layer}.{name}", n)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def prompt() -> list[int]:
    return np.random.default_rng(7).integers(3, N_VOCAB, 48).tolist()


def main() -> None:
    import llama_cpp

    logits = {}
    with tempfile.TemporaryDirectory() as folder:
        for arch in MODELS:
            path = Path(folder) / f"{arch}.gguf"
            write(arch, path)
            llm = llama_cpp.Llama(
                str(path), n_ctx=CTX, n_batch=CTX, logits_all=True, verbose=False, n_threads=1, type_k=0, type_v=0
            )
            llm.eval(prompt())
            logits[arch] = np.array(llm.scores[: len(prompt())], np.float32)[1::6]
            print(arch, logits[arch].std())
    np.savez_compressed(sys.argv[1], **logits)


if __name__ == "__main__":
    main()
