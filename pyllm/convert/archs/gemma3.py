"""gemma3: Gemma 3 (its text). Five windowed layers to each that sees everything, norms of queries and keys."""

from __future__ import annotations

from ..lazy import plus_one, times
from ..mapping import DECODER, GELU, GELU_TANH, QK_NORM, Mapping
from .gemma import NORMS, SANDWICH, heads, query_scale

CLASSES = ("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration")
#: what the configuration of models that see leaves out
DEFAULTS = {
    "max_position_embeddings": 131072,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "vocab_size": 262208,
    "rope_theta": 1_000_000.0,
}


def convert(m: Mapping) -> None:
    c = m.config
    c.values = DEFAULTS | {k: v for k, v in c.values.items() if v is not None}
    layers = c.get("layer_types")
    if c.get("sliding_window_pattern", "_sliding_window_pattern", default=6) != 6 or (
        layers is not None
        and layers != ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(len(layers))]
    ):
        raise c.error("only models in which every sixth layer sees everything are supported")
    m.hparams(act=(*GELU_TANH, *GELU))
    heads(m)
    m.key("rope.freq_base_swa", float(c.local_rope_theta or 10000.0))
    m.key("attention.sliding_window", c.integer("sliding_window"))
    if c.has("final_logit_softcapping"):
        m.key("final_logit_softcapping", c.real("final_logit_softcapping"))
    m.drop(r"lm_head\.weight")
    scale = times(query_scale(m, 62))
    m.move(DECODER | SANDWICH | QK_NORM, NORMS | {"attn_q_norm": lambda x: scale(plus_one(x))})
