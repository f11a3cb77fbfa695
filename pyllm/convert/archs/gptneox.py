"""gptneox: GPT-NeoX, Pythia. Queries, keys and values of a head lie together in the checkpoint."""

from __future__ import annotations

from ..lazy import Lazy, grouped
from ..mapping import GELU, Mapping

CLASSES = ("GPTNeoXForCausalLM",)
NAMES = {
    "gpt_neox.embed_in": "token_embd",
    "gpt_neox.final_layer_norm": "output_norm",
    "embed_out": "output",
    "{L}.input_layernorm": "{B}.attn_norm",
    "{L}.post_attention_layernorm": "{B}.ffn_norm",
    "{L}.attention.query_key_value": "{B}.attn_qkv",
    "{L}.attention.dense": "{B}.attn_output",
    "{L}.mlp.dense_h_to_4h": "{B}.ffn_up",
    "{L}.mlp.dense_4h_to_h": "{B}.ffn_down",
}


def convert(m: Mapping) -> None:
    c = m.config
    m.hparams(norm="layer", act=GELU)
    m.key("rope.dimension_count", int(c.rope_real("partial_rotary_factor", 0.25) * c.head_dim))
    m.key("use_parallel_residual", c.flag("use_parallel_residual", default=True))
    split = grouped(c.n_head, 1)
    m.move(NAMES, {"attn_qkv": lambda x: Lazy.join(split(x), x.shape)})
