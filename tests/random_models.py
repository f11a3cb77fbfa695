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
EXPANDED = {
    "attn_q_a": (LOW, D),
    "attn_q_b": (HEADS * (PLAIN + ROT), LOW),
    "attn_kv_a_mqa": (LATENT + ROT, D),
    "attn_kv_b": (HEADS * (PLAIN + VALUE), LATENT),
    "attn_output": (D, HEADS * VALUE),
}
EXPANDED_KEYS = {
    "attention.key_length": PLAIN + ROT, "attention.value_length": VALUE, "attention.q_lora_rank": LOW,
    "attention.kv_lora_rank": LATENT, "rope.dimension_count": ROT,
}  # fmt: skip
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
POST = ["post_attention_norm", "post_ffw_norm"]
SANDWICH = [*PRE, *POST]
QKV_BIAS = ["attn_q", "attn_k", "attn_v"]
HEAD_NORMS = {"attn_q_norm": HEAD, "attn_k_norm": HEAD}
ALL_NORMS = {"attn_q_norm": HEADS * HEAD, "attn_k_norm": KV * HEAD}
CHOICE = {"exp_probs_b": N_EXPERT}  # a bias without a matrix
BY_SIGMOID = {**EXPERT_KEYS, "expert_shared_count": 1, "expert_gating_func": 2, "expert_weights_scale": 1.5}
DENSE_FIRST = {"leading_dense_block_count": 1}
SPARSE_ONLY = EXPERTS | SHARED_EXPERT
SPARSE = ATTENTION | SPARSE_ONLY
#: after one dense layer
AFTER_ONE = [ATTENTION | GLU, *[SPARSE] * (LAYERS - 1)]
GROUPS = {"expert_group_count": 3, "expert_group_used_count": 2}
#: a layer that guesses further tokens, after the others
NEXTN = SPARSE | {"nextn.eh_proj": (D, 2 * D)}
CONV = {"shortconv.in_proj": (3 * D, D), "shortconv.conv": (D, 3), "shortconv.out_proj": (D, D)}
D_INNER, N_STATE, N_GROUP, N_DT = 2 * D, 16, 2, 8
SSM = {
    "ssm_in": (2 * D_INNER + 2 * N_GROUP * N_STATE + N_DT, D),
    "ssm_conv1d": (D_INNER + 2 * N_GROUP * N_STATE, 4),
    "ssm_out": (D, D_INNER),
}
SSM_KEYS = {
    "ssm.conv_kernel": 4, "ssm.inner_size": D_INNER, "ssm.state_size": N_STATE, "ssm.group_count": N_GROUP,
    "ssm.time_step_rank": N_DT,
}  # fmt: skip
NO_GATE = {
    "ffn_gate_inp": (N_EXPERT, D), "ffn_latent_down": (D // 2, D), "ffn_latent_up": (D, D // 2),
    "ffn_up_exps": (N_EXPERT, FF, D // 2), "ffn_down_exps": (N_EXPERT, D // 2, FF),
    "ffn_up_shexp": (FF, D), "ffn_down_shexp": (D, FF),
}  # fmt: skip
OWN = 8  # values of a layer's own embedding
LOCAL = ATTENTION | GLU | {"attn_q_norm": (HEAD,), "attn_k_norm": (HEAD,)}
WHOLE = {"attn_q": (HEADS * 2 * HEAD, D), "attn_k": (2 * HEAD, D), "attn_output": (D, HEADS * 2 * HEAD),
         "attn_q_norm": (2 * HEAD,), "attn_k_norm": (2 * HEAD,)} | GLU  # fmt: skip
OF_LAYER = {"inp_gate": (OWN, D), "proj": (D, OWN), "post_norm": (D,), "layer_output_scale": (1,)}
BESIDE = {
    "ffn_gate_inp": (N_EXPERT, D), "ffn_gate_inp.scale": (D,), "ffn_gate_up_exps": (N_EXPERT, 2 * FF, D),
    "ffn_down_exps": (N_EXPERT, D, FF), "ffn_down_exps.scale": (N_EXPERT,), "pre_ffw_norm_2": (D,),
    "post_ffw_norm_1": (D,), "post_ffw_norm_2": (D,),
}  # fmt: skip
GEMMA4_KEYS = {
    "attention.key_length": 2 * HEAD, "attention.value_length": 2 * HEAD, "attention.key_length_swa": HEAD,
    "attention.value_length_swa": HEAD, "attention.sliding_window": 8, "rope.dimension_count": 2 * HEAD,
    "attention.sliding_window_pattern": [True, False] * 3, "rope.dimension_count_swa": HEAD,
    "rope.freq_base_swa": 500.0,
}  # fmt: skip
SECTIONS = {"rope.dimension_sections": [3, 3, 2, 0]}

#: architecture -> matrices (of all layers, or of each), norms, biases, and keys that are not the same for all; what
#: follows "+" in a name is only to tell two models apart. qwen2vl: llama.cpp reads no epsilon there, and takes 0
MODELS: dict[str, dict[str, Any]] = {
    "apertus": {"matrices": ATTENTION | MLP, "vectors": HEAD_NORMS,
                "file_keys": {"xielu.alpha_n": [0.8, 0.5, -0.3, 0.2, 0.1], "xielu.alpha_p": [0.3, -0.2, 0.4, 0.1, 0.5],
                              "xielu.beta": [0.5] * 5, "xielu.eps": [-1e-6] * 5}},
    "arcee": {"matrices": ATTENTION | MLP},
    "baichuan": {"matrices": [ATTENTION | GLU] * 32},
    "bailingmoe": {"matrices": SPARSE, "keys": {**EXPERT_KEYS, "expert_shared_count": 1, "expert_weights_norm": True,
                                                "leading_dense_block_count": 0}},
    "bailingmoe2": {"matrices": [FUSED | GLU, *[FUSED | EXPERTS | SHARED_EXPERT] * (LAYERS - 1)], "vectors": HEAD_NORMS,
                    "sparse_biases": CHOICE,
                    "keys": BY_SIGMOID | DENSE_FIRST | GROUPS | {"expert_weights_norm": True,
                                                                 "rope.dimension_count": 8}},
    "chatglm": {"matrices": FUSED | GATE_UP, "biases": ["attn_qkv"], "keys": {"rope.dimension_count": 8}},
    "codeshell": {"matrices": FUSED | MLP, "biases": [*FUSED, *MLP], "layer_norm": True, "norm_biases": True},
    "command-r": {"matrices": ATTENTION | GLU, "norms": ["attn_norm"], "layer_norm": True, "tied": True,
                  "keys": {"logit_scale": 4.0}},
    "deepseek2": {"matrices": MLA | EXPERTS | SHARED_EXPERT, "n_kv": 1,
                  "vectors": {"attn_q_a_norm": LOW, "attn_kv_a_norm": LATENT},
                  "keys": MLA_KEYS | EXPERT_KEYS | YARN | {
                      "rope.dimension_count": ROT, "leading_dense_block_count": 0, "expert_shared_count": 1,
                      "expert_gating_func": 1, "expert_weights_scale": 1.5}},
    "dbrx": {"matrices": FUSED | EXPERTS, "norms": ["attn_norm", "attn_output_norm"], "layer_norm": True,
             "keys": {**EXPERT_KEYS, "attention.clamp_kqv": 0.8}},
    "deepseek": {"matrices": AFTER_ONE, "keys": EXPERT_KEYS | DENSE_FIRST | {"expert_shared_count": 1,
                                                                             "expert_weights_scale": 1.5}},
    "deepseek2+groups": {"matrices": MLA | EXPERTS | SHARED_EXPERT, "n_kv": 1, "sparse_biases": CHOICE,
                         "vectors": {"attn_q_a_norm": LOW, "attn_kv_a_norm": LATENT},
                         "keys": MLA_KEYS | BY_SIGMOID | GROUPS | {
                             "rope.dimension_count": ROT, "leading_dense_block_count": 0, "expert_weights_norm": True}},
    "deepseek2+expanded": {"matrices": EXPANDED | EXPERTS | SHARED_EXPERT, "n_kv": HEADS,
                           "vectors": {"attn_q_a_norm": LOW, "attn_kv_a_norm": LATENT},
                           "keys": EXPANDED_KEYS | EXPERT_KEYS | YARN | {
                               "leading_dense_block_count": 0, "expert_shared_count": 1, "expert_gating_func": 1}},
    "dots1": {"matrices": [{k: (HEADS * HEAD, D) if k in ("attn_k", "attn_v") else v for k, v in layer.items()}
                           for layer in AFTER_ONE], "n_kv": HEADS, "vectors": HEAD_NORMS, "sparse_biases": CHOICE,
              "keys": BY_SIGMOID | DENSE_FIRST | {"expert_weights_norm": True}},
    "ernie4_5": {"matrices": ATTENTION | GLU},
    "ernie4_5-moe": {"matrices": AFTER_ONE, "sparse_biases": CHOICE,
                     "keys": EXPERT_KEYS | DENSE_FIRST | {"expert_shared_feed_forward_length": FF,
                                                          "interleave_moe_layer_step": 1}},
    "exaone": {"matrices": ATTENTION | GLU},
    "exaone4": {"matrices": ATTENTION | GLU, "norms": POST, "vectors": HEAD_NORMS},
    "exaone4+windows": {"matrices": [ATTENTION | GLU] * 64, "norms": POST, "vectors": HEAD_NORMS,
                        "keys": {"attention.sliding_window": 8, "attention.sliding_window_pattern": 4}},
    "exaone-moe": {"matrices": [*AFTER_ONE, ATTENTION | GLU | {"nextn.eh_proj": (D, 2 * D)}],
                   "vectors": HEAD_NORMS, "sparse_biases": CHOICE,
                   "nextn": {"nextn.enorm": D, "nextn.hnorm": D},
                   "keys": BY_SIGMOID | DENSE_FIRST | {"attention.sliding_window": 8, "nextn_predict_layers": 1,
                                                       "expert_weights_norm": True}},
    "gemma4": {"matrices": [layer | OF_LAYER for layer in (LOCAL, WHOLE) * 3], "norms": SANDWICH,
               "tied": True, "n_ff": [FF] * 6, "n_kv": [KV, 1] * 3, "keys": GEMMA4_KEYS | {
                   "attention.shared_kv_layers": 2, "embedding_length_per_layer_input": OWN,
                   "final_logit_softcapping": 30.0},
               "tensors": {"rope_freqs": (HEAD,), "per_layer_token_embd": (N_VOCAB, 6 * OWN),
                           "per_layer_model_proj": (6 * OWN, D), "per_layer_proj_norm": (OWN,)}},
    "gemma4+experts": {"matrices": [layer | BESIDE for layer in (LOCAL, WHOLE) * 3], "norms": SANDWICH,
                       "tied": True, "n_ff": [FF] * 6, "n_kv": [KV, 1] * 3,
                       "keys": GEMMA4_KEYS | EXPERT_KEYS | {"embedding_length_per_layer_input": 0},
                       "tensors": {"rope_freqs": (HEAD,)}},
    "glm4": {"matrices": ATTENTION | GATE_UP, "norms": SANDWICH, "biases": QKV_BIAS,
             "keys": {"rope.dimension_count": 8}},
    "glm4moe": {"matrices": [*AFTER_ONE, NEXTN], "norms": ["attn_norm", "post_attention_norm"], "biases": QKV_BIAS,
                "vectors": HEAD_NORMS, "sparse_biases": CHOICE, "nextn": {"nextn.enorm": D, "nextn.hnorm": D},
                "keys": BY_SIGMOID | DENSE_FIRST | {"expert_weights_norm": True, "rope.dimension_count": 8,
                                                    "nextn_predict_layers": 1}},
    "granitehybrid": {"matrices": [SSM | SPARSE_ONLY, ATTENTION | SPARSE_ONLY, SSM | SPARSE_ONLY], "n_kv": [0, KV, 0],
                      "keys": {"embedding_scale": 6.0, "residual_scale": 0.5, "logit_scale": 0.25,
                               "attention.scale": 0.2, "rope.scaling.finetuned": False,
                               "expert_shared_feed_forward_length": FF, **EXPERT_KEYS, **SSM_KEYS}},
    "granitemoe": {"matrices": ATTENTION | EXPERTS,
                   "keys": {"embedding_scale": 6.0, "residual_scale": 0.5, "logit_scale": 0.25, "attention.scale": 0.2,
                            **EXPERT_KEYS}},
    "hunyuan-dense": {"matrices": ATTENTION | GLU, "vectors": HEAD_NORMS, "keys": {"rope.scaling.alpha": 50.0}},
    "hunyuan-moe": {"matrices": SPARSE, "vectors": HEAD_NORMS,
                    "keys": EXPERT_KEYS | {"expert_shared_feed_forward_length": FF}},
    "internlm2": {"matrices": ATTENTION | GLU},
    "lfm2moe": {"matrices": [CONV | GLU, ATTENTION | EXPERTS, CONV | EXPERTS, CONV | EXPERTS, ATTENTION | EXPERTS],
                "n_kv": [0, KV, 0, 0, KV], "vectors": HEAD_NORMS, "last_norm": "token_embd_norm",
                "sparse_biases": CHOICE,
                "keys": {**EXPERT_KEYS, "expert_gating_func": 2, "shortconv.l_cache": 3} | DENSE_FIRST},
    "jais2": {"matrices": ATTENTION | MLP, "biases": [*ATTENTION, *MLP], "layer_norm": True, "norm_biases": True},
    "llama4": {"matrices": [ATTENTION | GLU if i % 2 == 0 else SPARSE for i in range(5)],
               "keys": EXPERT_KEYS | {"expert_used_count": 1, "interleave_moe_layer_step": 2}},
    "maincoder": {"matrices": ATTENTION | GLU, "vectors": HEAD_NORMS},
    "mellum": {"matrices": ATTENTION | EXPERTS, "vectors": HEAD_NORMS,
               "keys": EXPERT_KEYS | YARN | {"attention.sliding_window": 8}},
    "minicpm": {"matrices": ATTENTION | GLU,
                "keys": {"embedding_scale": 6.0, "residual_scale": 0.5, "logit_scale": 0.25}},
    "minicpm3": {"matrices": EXPANDED | GLU, "n_kv": HEADS, "keys": EXPANDED_KEYS,
                 "vectors": {"attn_q_a_norm": LOW, "attn_kv_a_norm": LATENT}},
    "minimax-m2": {"matrices": ATTENTION | EXPERTS, "vectors": ALL_NORMS, "sparse_biases": CHOICE,
                   "keys": {**EXPERT_KEYS, "expert_gating_func": 2, "rope.dimension_count": 8}},
    "mistral3": {"matrices": ATTENTION | GLU,
                 "keys": YARN | {"rope.scaling.yarn_log_multiplier": 0.7, "attention.temperature_scale": 0.3,
                                 "rope.scaling.original_context_length": 16}},
    "nemotron": {"matrices": ATTENTION | MLP, "layer_norm": True, "norm_biases": True,
                 "keys": {"rope.dimension_count": 8}},
    "nemotron_h": {"matrices": [SSM, MLP, ATTENTION, MLP, SSM], "norms": ["attn_norm"], "n_kv": [0, 0, KV, 0, 0],
                   "layer_norm": True, "n_ff": [0, FF, 0, FF, 0], "keys": SSM_KEYS},
    "nemotron_h_moe": {"matrices": [SSM, NO_GATE, ATTENTION, NO_GATE, SSM], "norms": ["attn_norm"],
                       "n_kv": [0, 0, KV, 0, 0], "layer_norm": True, "n_ff": [0, FF, 0, FF, 0], "sparse_biases": CHOICE,
                       "keys": SSM_KEYS | BY_SIGMOID | {"expert_shared_feed_forward_length": FF,
                                                        "moe_latent_size": D // 2, "expert_weights_norm": True}},
    "olmo": {"matrices": ATTENTION | GLU, "norms": [], "last_norm": "", "layer_norm": True,
             "keys": {"attention.clamp_kqv": 0.8}},
    "olmo2+windows": {"matrices": ATTENTION | GLU, "norms": POST, "vectors": ALL_NORMS,
                      "keys": YARN | {"attention.sliding_window": 8,
                                      "attention.sliding_window_pattern": [True, True, False, True, False]}},
    "olmoe": {"matrices": dict.fromkeys(ATTENTION, (D, D)) | EXPERTS, "keys": EXPERT_KEYS, "n_kv": HEADS,
              "vectors": {"attn_q_norm": D, "attn_k_norm": D}},
    "orion": {"matrices": ATTENTION | GLU, "layer_norm": True, "norm_biases": True},
    "pangu-embedded": {"matrices": ATTENTION | GLU, "biases": [*QKV_BIAS, "attn_output"]},
    "phi2": {"matrices": ATTENTION | MLP, "norms": ["attn_norm"], "biases": [*ATTENTION, *MLP], "layer_norm": True,
             "norm_biases": True, "head_bias": True, "keys": {"rope.dimension_count": 8}},
    "plamo": {"matrices": ATTENTION | GLU, "norms": ["attn_norm"]},
    "plm": {"matrices": {k: v for k, v in EXPANDED.items() if k not in ("attn_q_a", "attn_q_b")} | MLP | {
        "attn_q": (HEADS * (PLAIN + ROT), D)}, "n_kv": HEADS, "keys": EXPANDED_KEYS, "tied": True,
        "vectors": {"attn_kv_a_norm": LATENT}},
    "qwen": {"matrices": {**FUSED, "attn_qkv": (3 * HEADS * HEAD, D), "ffn_gate": (FF // 2, D), "ffn_up": (FF // 2, D),
                          "ffn_down": (D, FF // 2)}, "biases": ["attn_qkv"], "n_kv": HEADS},
    "qwen2vl": {"matrices": ATTENTION | GLU, "biases": QKV_BIAS, "keys": SECTIONS, "eps": 1e-12},
    "qwen3vl": {"matrices": ATTENTION | GLU, "vectors": HEAD_NORMS, "keys": SECTIONS},
    "qwen3vlmoe": {"matrices": ATTENTION | EXPERTS, "vectors": HEAD_NORMS, "keys": SECTIONS | EXPERT_KEYS},
    "seed_oss": {"matrices": ATTENTION | GLU, "norms": ["attn_norm", "post_attention_norm"], "biases": QKV_BIAS},
    "smallthinker": {"matrices": [ATTENTION | EXPERTS] * 5, "keys": {**EXPERT_KEYS, "attention.sliding_window": 4096,
                                                                     "expert_gating_func": 2}},
    "starcoder": {"matrices": FUSED | MLP, "biases": [*FUSED, *MLP], "layer_norm": True, "norm_biases": True,
                  "positions": True},
    "starcoder2": {"matrices": ATTENTION | MLP, "biases": [*ATTENTION, *MLP], "layer_norm": True, "norm_biases": True},
    "xverse": {"matrices": ATTENTION | GLU},
}  # fmt: skip


def write(name: str, path: Path) -> None:
    """The model of a name in MODELS, always the same, with a vocabulary of bytes."""
    spec = MODELS[name]
    keys, matrices = spec.get("keys", {}), spec["matrices"]
    layers = matrices if isinstance(matrices, list) else [matrices] * LAYERS
    arch = name.split("+")[0]
    w = gguf.GGUFWriter(str(path), arch)
    w.add_context_length(CTX)
    w.add_embedding_length(D)
    w.add_block_count(len(layers))
    w.add_feed_forward_length(spec.get("n_ff", FF))
    w.add_head_count(HEADS)
    w.add_head_count_kv(spec.get("n_kv", KV))
    w.add_rope_dimension_count(keys.get("rope.dimension_count", HEAD))
    w.add_rope_freq_base(10000.0)
    (w.add_layer_norm_eps if spec.get("layer_norm") else w.add_layer_norm_rms_eps)(spec.get("eps", 1e-5))
    for key, value in spec.get("file_keys", {}).items():
        w.add_array(key, value)
    for key, value in keys.items():
        if isinstance(value, float):
            w.add_float32(f"{arch}.{key}", value)
        elif isinstance(value, str):
            w.add_string(f"{arch}.{key}", value)
        elif isinstance(value, bool):
            w.add_bool(f"{arch}.{key}", value)
        elif isinstance(value, list):
            w.add_array(f"{arch}.{key}", value)
        elif key != "rope.dimension_count":
            w.add_uint32(f"{arch}.{key}", value)
    w.add_tokenizer_model("llama")
    w.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))])
    w.add_token_scores([0.0] * N_VOCAB)
    w.add_token_types([2, 3, 3] + [6] * 256)
    rng = np.random.default_rng(sum(name.encode()))

    def matrix(name: str, *shape: int) -> None:
        gain = 1.6 if "attn_q" in name or "attn_k" in name else 1.0
        w.add_tensor(name + ".weight", (rng.standard_normal(shape) * gain / shape[-1] ** 0.5).astype(np.float32))

    def norm(name: str, n: int = D) -> None:
        name += "" if name.endswith(".scale") else ".weight"
        w.add_tensor(name, (1 + 0.2 * rng.standard_normal(n)).astype(np.float32))
        if spec.get("norm_biases"):
            bias(name.removesuffix(".weight"), n)

    def bias(name: str, n: int) -> None:
        w.add_tensor(name + ".bias", (0.25 * rng.standard_normal(n)).astype(np.float32))

    matrix("token_embd", N_VOCAB, D)
    for name, shape in spec.get("tensors", {}).items():
        (norm if len(shape) == 1 else matrix)(name, *shape)
    if spec.get("positions"):
        matrix("position_embd", CTX, D)
    if spec.get("last_norm", "output_norm"):
        norm(spec.get("last_norm", "output_norm"))
    if not spec.get("tied"):
        matrix("output", N_VOCAB, D)
    if spec.get("head_bias"):
        bias("output", N_VOCAB)
    for layer, shapes in enumerate(layers):
        for name in spec.get("norms", PRE):
            norm(f"blk.{layer}.{name}")
        for name, shape in shapes.items():
            if len(shape) == 1:
                norm(f"blk.{layer}.{name}", *shape)
                continue
            matrix(f"blk.{layer}.{name}", *shape)
            if name in spec.get("biases", []):
                bias(f"blk.{layer}.{name}", shape[0])
        vectors = {} if "shortconv.conv" in shapes else spec.get("vectors", {})
        if "ssm_in" in shapes:
            bias(f"blk.{layer}.ssm_conv1d", shapes["ssm_conv1d"][0])
            bias(f"blk.{layer}.ssm_dt", N_DT)
            w.add_tensor(f"blk.{layer}.ssm_a", -np.exp(rng.standard_normal((N_DT, 1))).astype(np.float32))
            w.add_tensor(f"blk.{layer}.ssm_d", rng.standard_normal((N_DT, 1)).astype(np.float32))
            gain = 1 + 0.2 * rng.standard_normal((N_GROUP, D_INNER // N_GROUP))
            w.add_tensor(f"blk.{layer}.ssm_norm.weight", gain.astype(np.float32))
        if "nextn.eh_proj" in shapes:
            vectors = {**vectors, **spec["nextn"]}
        for name, n in vectors.items():
            norm(f"blk.{layer}.{name}", n)
        if "ffn_gate_inp" in shapes:
            for name, n in spec.get("sparse_biases", {}).items():
                bias(f"blk.{layer}.{name}", n)
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
