"""falcon: Falcon 7B and 40B. Keys and values follow the queries that share them in the checkpoint."""

from __future__ import annotations

from ..lazy import Lazy, grouped
from ..mapping import GELU, Mapping

CLASSES = ("FalconForCausalLM", "RWForCausalLM")
NAMES = {
    "transformer.word_embeddings": "token_embd",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",
    "{L}.input_layernorm": "{B}.attn_norm",
    "{L}.ln_mlp": "{B}.attn_norm",
    "{L}.ln_attn": "{B}.attn_norm_2",
    "{L}.self_attention.query_key_value": "{B}.attn_qkv",
    "{L}.self_attention.dense": "{B}.attn_output",
    "{L}.mlp.dense_h_to_4h": "{B}.ffn_up",
    "{L}.mlp.dense_4h_to_h": "{B}.ffn_down",
}


def convert(m: Mapping) -> None:
    c = m.config
    if c.flag("alibi") or not c.flag("parallel_attn", default=True):
        raise c.error("only Falcon with rotary positions and parallel attention is supported")
    if c.flag("new_decoder_architecture"):
        n_kv = c.integer("num_kv_heads", "n_head_kv")
    else:
        n_kv = 1 if c.flag("multi_query", default=True) else c.n_head
    c.values["num_key_value_heads"] = n_kv
    c.values["intermediate_size"] = c.get("ffn_hidden_size") or 4 * c.n_embd
    c.values.setdefault("max_position_embeddings", 2048)
    m.hparams(norm="layer", head_dim=False, act=GELU)
    m.key("tensor_data_layout", "jploski")  # queries, then keys, then values
    split = grouped(n_kv, c.n_head // c.n_head_kv)
    m.move(NAMES, {"attn_qkv": lambda x: Lazy.join(split(x), x.shape)})
