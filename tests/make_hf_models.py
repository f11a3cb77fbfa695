"""Small random models of transformers to hold `pyllm convert` against: python tests/make_hf_models.py OUT [NAME ...]

Needs transformers and torch, which the project does not: run it in a virtual environment of its own. OUT/NAME is a
model folder as save_pretrained writes it, with a tokenizer, and OUT/NAME.npz holds the logits that transformers
computes in float32 for a prompt; check_hf_models.py converts and compares. --names FILE writes the names and shapes of
tensors too: tests/data/hf_names.json comes from it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from hf_tokenizer import write_tokenizer

SHARED = Path(os.environ.get("PYLLM_SHARED", "../shared")) / "goldens" / "models"
SMALL = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": 504, "eos_token_id": 510,
    "pad_token_id": None,
}  # fmt: skip
MOE = {"num_experts_per_tok": 2}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
ROUTED = MOE | {
    "n_routed_experts": 4, "n_shared_experts": 1, "moe_intermediate_size": 32, "first_k_dense_replace": 1, "n_group": 1,
    "topk_group": 1,
}  # fmt: skip
HYBRID = {
    "shared_intermediate_size": 96, "layer_types": ["mamba", "attention"], "mamba_n_heads": 8, "mamba_d_head": 16,
    "mamba_d_state": 16, "mamba_n_groups": 1, "embedding_multiplier": 3.0, "logits_scaling": 2.0,
    "residual_multiplier": 0.5, "attention_multiplier": 0.2,
}  # fmt: skip
# fmt: off
#: models without a golden: class and what differs from SMALL
MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "starcoder2": ("Starcoder2ForCausalLM", {"sliding_window": 16, "use_bias": True, "norm_epsilon": 1e-5}),
    "granitemoe": ("GraniteMoeForCausalLM", MOE | {
        "num_local_experts": 4, "embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22,
        "attention_multiplier": 0.0625}),
    "olmoe": ("OlmoeForCausalLM", MOE | {"num_experts": 4, "num_key_value_heads": 4, "norm_topk_prob": False}),
    "glm4": ("Glm4ForCausalLM", {"head_dim": 16, "attention_bias": True}),
    "chatglm": ("GlmForCausalLM", {"head_dim": 16, "attention_bias": True}),
    "ernie4_5": ("Ernie4_5ForCausalLM", {"head_dim": 16}),
    "command_r": ("CohereForCausalLM", {"logit_scale": 0.25, "use_qk_norm": False}),
    "deepseek3": ("DeepseekV3ForCausalLM", MOE | {
        "num_hidden_layers": 3, "num_key_value_heads": 4, "n_routed_experts": 6, "n_shared_experts": 1, "n_group": 1,
        "topk_group": 1, "first_k_dense_replace": 1, "moe_intermediate_size": 32, "kv_lora_rank": 32, "q_lora_rank": 24,
        "qk_nope_head_dim": 24, "qk_rope_head_dim": 16, "v_head_dim": 20, "routed_scaling_factor": 2.5}),
    "deepseek2_yarn": ("DeepseekV2ForCausalLM", MOE | {
        "num_hidden_layers": 3, "num_key_value_heads": 4, "n_routed_experts": 6, "n_shared_experts": 1, "n_group": 1,
        "topk_group": 1, "first_k_dense_replace": 1, "moe_intermediate_size": 32, "kv_lora_rank": 32, "q_lora_rank": 24,
        "qk_nope_head_dim": 24, "qk_rope_head_dim": 16, "v_head_dim": 20, "routed_scaling_factor": 1.0,
        "topk_method": "greedy", "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0, "beta_fast": 32, "beta_slow": 1,
            "mscale": 0.707, "mscale_all_dim": 0.707, "original_max_position_embeddings": 16}}),
    "gemma2_scale": ("Gemma2ForCausalLM", {"head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 24}),
    "gemma3_vision": ("Gemma3ForConditionalGeneration", {
        "text_config": SMALL | {"head_dim": 16, "num_hidden_layers": 6, "sliding_window": 16,
                                      "query_pre_attn_scalar": 24, "model_type": "gemma3_text"},
        "vision_config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
                          "image_size": 28, "patch_size": 14, "model_type": "siglip_vision_model"},
        "mm_tokens_per_image": 4, "image_token_index": 500, "boi_token_index": 498, "eoi_token_index": 499}),
    "phi2": ("PhiForCausalLM", {}),
    "seed_oss": ("SeedOssForCausalLM", {"head_dim": 16}),
    "exaone4": ("Exaone4ForCausalLM", {"head_dim": 16, "num_hidden_layers": 5, "sliding_window": 16}),
    "arcee": ("ArceeForCausalLM", {"head_dim": 16}),
    "nemotron": ("NemotronForCausalLM", {"head_dim": 16}),
    "jais2": ("Jais2ForCausalLM", {"head_dim": 16}),
    "olmo": ("OlmoForCausalLM", {"clip_qkv": 1.5}),
    "starcoder": ("GPTBigCodeForCausalLM", {
        "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "n_inner": 128}),
    "hunyuan_dense": ("HunYuanDenseV1ForCausalLM", {"head_dim": 16}),
    "hunyuan_moe": ("HunYuanMoEV1ForCausalLM", {"head_dim": 16, "num_experts": 4, "moe_topk": 2}),
    "glm4moe": ("Glm4MoeForCausalLM", ROUTED | {"use_qk_norm": True, "head_dim": 16}),
    "dots1": ("Dots1ForCausalLM", ROUTED | {"head_dim": 16, "num_key_value_heads": 4, "norm_topk_prob": True}),
    "exaone_moe": ("ExaoneMoeForCausalLM", ROUTED | {
        "head_dim": 16, "num_experts": 4, "num_hidden_layers": 5, "sliding_window": 16, "num_shared_experts": 1}),
    "ernie4_5_moe": ("Ernie4_5_MoeForCausalLM", {
        "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32, "moe_num_shared_experts": 2,
        "moe_layer_start_index": 1, "moe_layer_end_index": 1}),
    "lfm2moe": ("Lfm2MoeForCausalLM", MOE | {
        "num_experts": 4, "moe_intermediate_size": 32, "num_dense_layers": 1,
        "layer_types": ["conv", "full_attention"]}),
    "granitehybrid": ("GraniteMoeHybridForCausalLM", HYBRID | {"num_local_experts": 0}),
    "granitehybrid_moe": ("GraniteMoeHybridForCausalLM", HYBRID | MOE | {
        "num_local_experts": 4, "position_embedding_type": "rope", "intermediate_size": 32}),
    "apertus": ("ApertusForCausalLM", {}),
    "mistral3": ("Ministral3ForCausalLM", {"head_dim": 16, "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 16.0, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0,
        "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 16}}),
    "qwen2vl": ("Qwen2_5_VLForConditionalGeneration", {
        "text_config": SMALL | {"rope_parameters": MROPE, "model_type": "qwen2_5_vl_text"},
        "vision_config": {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
                          "patch_size": 4}}),
    "qwen3vl": ("Qwen3VLForConditionalGeneration", {
        "text_config": SMALL | {"head_dim": 16, "rope_parameters": MROPE, "model_type": "qwen3_vl_text"},
        "vision_config": {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
                          "patch_size": 4, "deepstack_visual_indexes": [0]}}),
    "qwen3vlmoe": ("Qwen3VLMoeForConditionalGeneration", {
        "text_config": SMALL | MOE | {
            "head_dim": 16, "rope_parameters": MROPE, "model_type": "qwen3_vl_moe_text", "num_experts": 4,
            "moe_intermediate_size": 32},
        "vision_config": {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
                          "patch_size": 4, "deepstack_visual_indexes": [0]}}),
    "minicpm3": ("MiniCPM3ForCausalLM", {
        "num_key_value_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 32, "qk_nope_head_dim": 24, "qk_rope_head_dim": 16,
        "v_head_dim": 16, "head_dim": 16}),
    "minimax_m2": ("MiniMaxM2ForCausalLM", MOE | {"num_local_experts": 4, "head_dim": 16}),
    "falcon40": ("FalconForCausalLM", {
        "new_decoder_architecture": True, "num_kv_heads": 2, "num_attention_heads": 4, "bias": False, "alibi": False,
        "ffn_hidden_size": 128, "parallel_attn": True}),
    "falcon_h1_factors": ("FalconH1ForCausalLM", {
        "mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 2, "mamba_d_state": 16,
        "mamba_rms_norm": True, "mamba_norm_before_gate": False, "head_dim": 16, "embedding_multiplier": 5.5,
        "lm_head_multiplier": 0.3, "mlp_multipliers": [0.9, 0.6], "key_multiplier": 0.5,
        "attention_out_multiplier": 0.9, "attention_in_multiplier": 1.2,
        "ssm_multipliers": [0.7, 1.1, 0.8, 1.3, 0.6], "ssm_in_multiplier": 1.4,
        "ssm_out_multiplier": 0.8}),
}  # fmt: skip


def configuration(name: str) -> tuple[str, dict[str, Any]]:
    """Class and configuration of a golden or of MORE."""
    if name in MORE:
        cls, values = MORE[name]
        return cls, SMALL | values
    with np.load(SHARED / f"{name}.npz") as golden:
        config = json.loads(bytes(golden["meta_json"]))["config"]
    return config["architectures"][0], config


def make(name: str) -> Any:
    """The model, with weights of a fixed seed that make every part count."""
    cls_name, config = configuration(name)
    cls = getattr(transformers, cls_name)
    torch.manual_seed(1)
    model = cls(cls.config_class(**config)).eval()
    model.config.architectures = [cls_name]
    with torch.no_grad():
        for key, p in model.named_parameters():
            if key.endswith(("A_log", ".D", "dt_bias")):
                continue
            if re.search(r"embed|wte|wpe", key):
                p.normal_(0, 0.5)
            elif p.ndim >= 2:
                p.normal_(0, (1.6 if re.search(r"[qk]_proj|query_key|c_attn", key) else 1.0) / p.shape[-1] ** 0.5)
            elif "norm" in key or ".ln" in key or "ln_" in key:
                p.copy_(p + 0.2 * torch.randn_like(p) if key.endswith("weight") else 0.2 * torch.randn_like(p))
            elif p.ndim == 1:
                p.normal_(0, 0.2)
    return model


def vocabulary(name: str) -> dict[str, Any]:
    """tokenizer.ggml.* of the golden, or of a golden with 512 tokens."""
    from gguf import GGUFReader

    path = SHARED / f"{name if (SHARED / f'{name}.gguf').exists() else 'llama_tied'}.gguf"
    return {k: f.contents() for k, f in GGUFReader(path).fields.items() if k.startswith("tokenizer.")}


def names_and_shapes(folder: Path) -> dict[str, Any]:
    """{pattern: [shape, layers]}: numbers in names become {}, layers are those that have the tensor."""
    from safetensors import safe_open

    found: dict[str, tuple[list[int], set[int]]] = {}
    with safe_open(folder / "model.safetensors", "np") as file:
        for key in file.keys():  # noqa: SIM118
            numbers = [int(n) for n in re.findall(r"(?<=\.)\d+(?=\.|$)", key)]
            pattern = re.sub(r"(?<=\.)\d+(?=\.|$)", "{}", key)
            found.setdefault(pattern, (list(file.get_slice(key).get_shape()), set()))[1].add(
                numbers[0] if numbers else -1
            )
    return {pattern: [shape, sorted(layers)] for pattern, (shape, layers) in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--names", type=Path)
    args = parser.parse_args()
    names = args.models or sorted([p.stem for p in SHARED.glob("*.gguf")] + list(MORE))
    listed = {}
    for name in names:
        model = make(name)
        folder = args.out / name
        model.save_pretrained(folder)
        listed[name] = names_and_shapes(folder)
        vocab = vocabulary(name)
        write_tokenizer(folder, vocab)
        ids = np.random.default_rng(0).integers(3, min(440, model.config.get_text_config().vocab_size - 8), 40)
        with torch.no_grad():
            logits = model(torch.tensor(ids)[None], use_cache=False).logits[0].float().numpy()
            try:
                noise = np.abs(
                    model.double()(torch.tensor(ids)[None], use_cache=False).logits[0].numpy() - logits
                ).max()
            except RuntimeError:  # some experts have no path in float64
                noise = 0.0
        np.savez(args.out / f"{name}.npz", ids=ids, logits=logits, noise=noise)
        print(name, sum(p.numel() for p in model.parameters()), f"logits {logits.std():.2f}")
    if args.names:
        args.names.write_text(json.dumps(listed, separators=(",", ":")))


if __name__ == "__main__":
    main()
