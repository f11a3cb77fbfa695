"""llama: Llama 1 to 3.3, SmolLM 1 and 2, Mistral with its window, Mixtral, InternLM 3, and what is stored alike."""

from __future__ import annotations

from ..lazy import interleave
from ..mapping import DECODER, Mapping

CLASSES = ("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "InternLM3ForCausalLM")

MIXTRAL = {
    "{L}.block_sparse_moe.gate": "{B}.ffn_gate_inp",
    "{L}.block_sparse_moe.experts.{E}.w1": "{B}.ffn_gate_exps",
    "{L}.block_sparse_moe.experts.{E}.w2": "{B}.ffn_down_exps",
    "{L}.block_sparse_moe.experts.{E}.w3": "{B}.ffn_up_exps",
}


def convert(m: Mapping) -> None:
    c = m.config
    m.hparams()
    m.key("rope.dimension_count", c.n_rot)
    m.window()
    if c.has("num_local_experts"):
        m.experts(c.integer("num_local_experts"), c.integer("num_experts_per_tok"))
    m.move(DECODER | MIXTRAL, {"attn_q": interleave(c.n_head), "attn_k": interleave(c.n_head_kv)})
