"""internlm2: InternLM 2 and 2.5. Keys and values follow the queries that share them in the checkpoint."""

from __future__ import annotations

from ..lazy import grouped, interleave
from ..mapping import Mapping

CLASSES = ("InternLM2ForCausalLM",)
NAMES = {
    "model.tok_embeddings": "token_embd",
    "model.norm": "output_norm",
    "output": "output",
    "{L}.attention_norm": "{B}.attn_norm",
    "{L}.ffn_norm": "{B}.ffn_norm",
    "{L}.attention.wo": "{B}.attn_output",
    "{L}.feed_forward.w1": "{B}.ffn_gate",
    "{L}.feed_forward.w2": "{B}.ffn_down",
    "{L}.feed_forward.w3": "{B}.ffn_up",
}


def convert(m: Mapping) -> None:
    c = m.config
    m.hparams()
    split = grouped(c.n_head_kv, c.n_head // c.n_head_kv)
    for layer, name in m.each("{L}.attention.wqkv.weight"):
        q, k, v = split(m.take(name))
        m.put(f"blk.{layer}.attn_q.weight", interleave(c.n_head)(q))
        m.put(f"blk.{layer}.attn_k.weight", interleave(c.n_head_kv)(k))
        m.put(f"blk.{layer}.attn_v.weight", v)
    m.move(NAMES)
