"""gpt-oss: gpt-oss 20B and 120B. Experts in MXFP4 stay so, in GGUF's order of their bits; gates and ups alternate."""

from __future__ import annotations

from ..lazy import Packed, transpose
from ..mapping import DECODER, Mapping

NAME = "gpt-oss"
CLASSES = ("GptOssForCausalLM",)
OWN = {
    "{L}.post_attention_layernorm": "{B}.post_attention_norm",
    "{L}.self_attn.sinks": "{B}.attn_sinks.weight",
    "{L}.mlp.router": "{B}.ffn_gate_inp",
}


def convert(m: Mapping) -> None:
    c = m.config
    m.hparams()
    m.key("attention.sliding_window", c.integer("sliding_window"))
    m.experts(c.integer("num_local_experts"), c.integer("num_experts_per_tok"), c.integer("intermediate_size"))
    for layer in range(c.n_layer):
        old, new = f"model.layers.{layer}.mlp.experts", f"blk.{layer}.ffn_"
        bias = m.take(f"{old}.gate_up_proj_bias")
        m.put(f"{new}gate_exps.bias", bias[:, ::2])
        m.put(f"{new}up_exps.bias", bias[:, 1::2])
        m.put(f"{new}down_exps.bias", m.take(f"{old}.down_proj_bias"))
        if m.has(f"{old}.down_proj_blocks"):
            blocks, scales = m.take(f"{old}.gate_up_proj_blocks"), m.take(f"{old}.gate_up_proj_scales")
            for name, first in (("gate", 0), ("up", 1)):
                m.put(f"{new}{name}_exps.weight", Packed.mxfp4(blocks[:, first::2], scales[:, first::2]))
            down = Packed.mxfp4(m.take(f"{old}.down_proj_blocks"), m.take(f"{old}.down_proj_scales"))
            m.put(f"{new}down_exps.weight", down)
        else:
            both = transpose(m.take(f"{old}.gate_up_proj"))
            m.put(f"{new}gate_exps.weight", both[:, ::2])
            m.put(f"{new}up_exps.weight", both[:, 1::2])
            m.put(f"{new}down_exps.weight", transpose(m.take(f"{old}.down_proj")))
    m.move(DECODER | OWN)
