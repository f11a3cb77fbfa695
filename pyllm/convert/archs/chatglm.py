"""chatglm: ChatGLM 3, GLM-4 9B, in their own layout and in that of transformers."""

from __future__ import annotations

from ..mapping import DECODER, Mapping

CLASSES = ("GlmForCausalLM", "ChatGLMModel", "ChatGLMForConditionalGeneration")
FUSED = {"{L}.mlp.gate_up_proj": "{B}.ffn_up"}
OWN = {
    "transformer.embedding.word_embeddings": "token_embd",
    "transformer.encoder.final_layernorm": "output_norm",
    "transformer.output_layer": "output",
    "{L}.self_attention.query_key_value": "{B}.attn_qkv",
    "{L}.self_attention.dense": "{B}.attn_output",
    "{L}.mlp.dense_h_to_4h": "{B}.ffn_up",
    "{L}.mlp.dense_4h_to_h": "{B}.ffn_down",
}


def convert(m: Mapping) -> None:
    c = m.config
    values = c.values
    for ours, theirs in (("num_key_value_heads", "multi_query_group_num"), ("rms_norm_eps", "layernorm_epsilon"),
                         ("head_dim", "kv_channels"), ("vocab_size", "padded_vocab_size")):  # fmt: skip
        if c.has(theirs):
            values.setdefault(ours, values[theirs])
    if c.has("rope_ratio"):
        values.setdefault("rope_theta", 10000.0 * c.real("rope_ratio"))
    m.hparams(head_dim=False)
    m.key("rope.dimension_count", int(c.rope_real("partial_rotary_factor", 0.5) * c.head_dim))
    m.move(DECODER | FUSED | OWN)
