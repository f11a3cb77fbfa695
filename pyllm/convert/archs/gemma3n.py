"""gemma3n: Gemma 3n E2B and E4B (their text). Stacked AltUp matrices; norms are stored as they are."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from ..lazy import Lazy
from ..mapping import DECODER, GELU, GELU_TANH, QK_NORM, Mapping
from .gemma import SANDWICH, heads

CLASSES = ("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration")

OWN = {
    "model.embed_tokens_per_layer": "per_layer_token_embd",
    "model.per_layer_model_projection": "per_layer_model_proj",
    "model.per_layer_projection_norm": "per_layer_proj_norm",
    "model.altup_projections.{E}": "altup_proj",
    "model.altup_unembed_projections.{E}": "altup_unembd_proj",
    "{L}.altup.correct_output_scale": "{B}.altup_correct_scale.weight",
    "{L}.altup.correction_coefs": "{B}.altup_correct_coef",
    "{L}.altup.prediction_coefs": "{B}.altup_predict_coef",
    "{L}.altup.modality_router": "{B}.altup_router",
    "{L}.altup.router_norm": "{B}.altup_router_norm",
    "{L}.laurel.linear_left": "{B}.laurel_l",
    "{L}.laurel.linear_right": "{B}.laurel_r",
    "{L}.laurel.post_laurel_norm": "{B}.laurel_post_norm",
    "{L}.per_layer_input_gate": "{B}.inp_gate",
    "{L}.per_layer_projection": "{B}.proj",
    "{L}.post_per_layer_input_norm": "{B}.post_norm",
}


def convert(m: Mapping) -> None:
    c = m.config
    n = c.n_layer
    if isinstance(c.get("intermediate_size"), list):
        widths = c.items("intermediate_size", int, n)
    else:
        widths = [c.integer("intermediate_size")] * n
    c.values["intermediate_size"] = widths[0]
    m.hparams(act=(*GELU_TANH, *GELU))
    heads(m)
    m.key("feed_forward_length", widths, "array of i32")
    m.key("rope.freq_base_swa", float(c.local_rope_theta or 10000.0))
    m.key("attention.sliding_window", c.integer("sliding_window"))
    m.key("final_logit_softcapping", c.real("final_logit_softcapping", default=30.0))
    m.key("altup.active_idx", c.integer("altup_active_idx", default=0))
    m.key("altup.num_inputs", c.integer("altup_num_inputs", default=4))
    m.key("embedding_length_per_layer_input", c.integer("hidden_size_per_layer_input"))
    m.key("attention.shared_kv_layers", c.integer("num_kv_shared_layers"))
    shares = c.items("activation_sparsity_pattern", float, n)
    if any(not 0 <= s < 1 for s in shares):
        raise c.error("'activation_sparsity_pattern' has a value outside 0..1")
    scales = [NormalDist().inv_cdf(s) if s else -math.inf for s in shares]
    m.key("activation_sparsity_scale", np.array(scales, np.float32), "array of f32")
    kinds = c.items("layer_types", str, n)
    m.key("attention.sliding_window_pattern", [kind == "sliding_attention" for kind in kinds], "array of bool")
    m.drop(r"lm_head\.weight")
    rows = {"token_embd": lambda x: _rows(x, c.n_vocab), "per_layer_token_embd": lambda x: _rows(x, c.n_vocab)}
    m.move(DECODER | SANDWICH | QK_NORM | OWN, rows)
    # Layers that share keys and values have matrices of their own in the released checkpoints, which nobody reads;
    # transformers leaves them out when it saves, and llama.cpp wants them to be there.
    for layer in range(n - c.integer("num_kv_shared_layers"), n):
        for name in ("attn_k", "attn_v", "attn_k_norm"):
            pattern = m.tensors.get(f"blk.0.{name}.weight")
            if pattern and f"blk.{layer}.{name}.weight" not in m.tensors:
                m.put(f"blk.{layer}.{name}.weight", Lazy.zeros(pattern.shape, "F32"))


def _rows(x: Lazy, n: int) -> Lazy:
    """An embedding with zeros for the tokens that stand for images and sounds."""
    missing = n - x.shape[0]
    if missing <= 0:
        return x
    return Lazy.join([x, Lazy.zeros((missing, x.shape[1]), x.dtype)], (n, x.shape[1]))
